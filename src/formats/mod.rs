//! What lies on the disk or goes over to the next process, apart from the types that the program works with: a rename in
//! those makes no vault unusable and no handover fail.
//!
//! Each format has a version. A program reads every version up to its own, and refuses later ones; `tests/formats/` has an
//! example of each. Version 0 was written before there was a number; the aliases are its names.

pub mod cloud;
pub mod handover;
pub mod lock_file;
pub mod trusted_clouds;
pub mod vault_contents;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A format that is written as JSON.
pub trait Format: Serialize + DeserializeOwned {
    /// The version that this program writes. It is raised when a program of the version before would read it wrongly.
    const VERSION: u32;

    /// Reads any version up to that one.
    fn read(json: &[u8]) -> Result<Self, FormatError> {
        read(json)
    }

    /// As JSON, which may hold secrets.
    fn write(&self) -> Result<Zeroizing<Vec<u8>>, FormatError> {
        serde_json::to_vec(self).map(Zeroizing::new).map_err(|error| FormatError::Damaged(error.to_string()))
    }
}

fn read<T: Format>(json: &[u8]) -> Result<T, FormatError> {
    #[derive(Deserialize)]
    struct Version {
        #[serde(default)]
        version: u32,
    }
    let damaged = |error: serde_json::Error| FormatError::Damaged(error.to_string());
    let Version { version } = serde_json::from_slice(json).map_err(damaged)?;
    if version > T::VERSION {
        return Err(FormatError::Newer);
    }
    serde_json::from_slice(json).map_err(damaged)
}

/// Why bytes are not of a format.
#[derive(Debug, PartialEq, Eq)]
pub enum FormatError {
    /// A later version.
    Newer,
    /// Something else, in a parser's words.
    Damaged(String),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer => f.write_str("a newer ksb wrote it"),
            Self::Damaged(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::handover::Handover;
    use super::lock_file::LockFile;
    use super::trusted_clouds::TrustedClouds;
    use super::vault_contents::VaultContents;
    use super::*;

    /// What is read, as this program would write it.
    fn again<T: Format>(json: &[u8]) -> Value {
        serde_json::from_slice(&T::read(json).unwrap().write().unwrap()).unwrap()
    }

    /// Every version that was ever written is read; all but the number is then as this program writes it.
    fn reads_every_version<T: Format>(versions: &[&str]) {
        assert_eq!(versions.len(), T::VERSION as usize + 1, "a new version needs a new example");
        let newest = versions.last().unwrap();
        let expected: Value = serde_json::from_str(newest).unwrap();
        for (version, json) in (0..).zip(versions) {
            let mut read = again::<T>(json.as_bytes());
            assert_eq!(read["version"], version);
            read["version"] = T::VERSION.into();
            assert_eq!(read, expected, "version {version}");
        }
        let later = newest.replace("\"version\": 1", "\"version\": 2");
        assert!(matches!(T::read(later.as_bytes()), Err(FormatError::Newer)));
        assert!(matches!(T::read(&newest.as_bytes()[1..]), Err(FormatError::Damaged(_))));
    }

    macro_rules! examples {
        ($($file:literal),*) => { &[$(include_str!(concat!("../../tests/formats/", $file))),*] };
    }

    #[test]
    fn every_version_of_every_format_is_read() {
        reads_every_version::<VaultContents>(examples!("vault-contents-0.json", "vault-contents-1.json"));
        reads_every_version::<Handover>(examples!("handover-0.json", "handover-1.json"));
        reads_every_version::<LockFile>(examples!("lock-file-0.json", "lock-file-1.json"));
        reads_every_version::<TrustedClouds>(examples!("trusted-clouds-0.json", "trusted-clouds-1.json"));
    }
}
