//! What one process of the agent hands to the next one in its place.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Format;
use crate::model::Secret;

/// The state of the process that leaves.
#[derive(Serialize, Deserialize)]
pub struct Handover {
    /// The format's version.
    #[serde(default)]
    pub version: u32,
    /// A [`super::vault_contents::VaultContents`] as JSON.
    pub contents: Secret,
    /// What opens the vault, where it is to stay open.
    pub seal: Option<VaultSeal>,
    /// Ids of the leases whose end the vault does not know, because it is locked.
    #[serde(default, alias = "through")]
    pub lock_exempt: HashSet<String>,
    /// Whether the user unlocked the screen meanwhile.
    #[serde(default, alias = "is_welcome")]
    pub screen_unlocked: bool,
}

/// An open vault.
#[derive(Serialize, Deserialize)]
pub struct VaultSeal {
    /// The two lines at the file's beginning.
    pub lines: String,
    /// The key of the contents, in base64.
    pub key: Secret,
}

impl Format for Handover {
    const VERSION: u32 = 1;
}
