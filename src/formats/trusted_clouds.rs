//! `known-clouds-MACHINE.json`: the clouds that were used or trusted.

use serde::{Deserialize, Serialize};

use super::{Format, FormatError};

/// All of them.
#[derive(Serialize, Deserialize)]
pub struct TrustedClouds {
    /// The format's version.
    #[serde(default)]
    pub version: u32,
    /// In any order.
    pub clouds: Vec<TrustedCloud>,
}

/// One of them.
#[derive(Serialize, Deserialize)]
#[serde(from = "AnyVersion")]
pub struct TrustedCloud {
    /// Keystone's address without `/v3`.
    pub keystone: String,
    /// The identity provider's name, and its address where the entry has one.
    pub identity_provider: Option<String>,
    /// How Keystone's certificate is checked, and the addresses that a client's secret goes to.
    pub tls: String,
}

/// Version 0 was a list of lists.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnyVersion {
    V0(String, Option<String>, String),
    V1 { keystone: String, identity_provider: Option<String>, tls: String },
}

impl From<AnyVersion> for TrustedCloud {
    fn from(read: AnyVersion) -> Self {
        let (AnyVersion::V0(keystone, identity_provider, tls)
        | AnyVersion::V1 { keystone, identity_provider, tls }) = read;
        Self { keystone, identity_provider, tls }
    }
}

impl Format for TrustedClouds {
    const VERSION: u32 = 1;

    fn read(json: &[u8]) -> Result<Self, FormatError> {
        match serde_json::from_slice(json) {
            Ok(clouds) => Ok(Self { version: 0, clouds }),
            Err(_) => super::read(json),
        }
    }
}
