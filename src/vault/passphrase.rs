//! A key made of a passphrase.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};

use super::key::Key;
use crate::error::{Code, Error, Result, reason};
use crate::model::Secret;
use crate::platform::owner;

/// What it costs to try a passphrase (Argon2id, RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Memory in KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// RFC 9106 section 4, the second recommended choice: 64 MiB, for machines that have other things to do.
    pub const RECOMMENDED: Self = Self { memory: 64 << 10, passes: 3, lanes: 4 };

    /// The file is not authentic before it is opened: it must not make us take all memory or time there is.
    fn is_bearable(self) -> bool {
        self.memory <= 1 << 20 && self.passes <= 16 && self.lanes <= 16
    }
}

/// The key that a passphrase makes with the vault's salt; `None` for a cost that nobody meant.
pub(super) fn derive(passphrase: &Secret, salt: &str, cost: Cost) -> Option<Key> {
    let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(32)).ok()?;
    let mut key = Key::empty();
    cost.is_bearable().then_some(())?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.expose().as_bytes(), salt.as_bytes(), key.bytes_mut())
        .ok()?;
    Some(key)
}

/// The passphrase in a file: its first line.
pub(super) fn read(file: &Path) -> Result<Secret> {
    let bad = |why: String| Error::new(Code::VaultSealed, format!("{}: {why}", file.display()));
    let meta = fs::metadata(file).map_err(|error| bad(reason(&error)))?;
    // systemd's credentials are root's, given to us by an ACL: that one's mask shows as the group's bits.
    let others = if meta.uid() == 0 { 0o007 } else { 0o077 };
    if meta.mode() & others != 0 {
        return Err(bad("others can read the passphrase".into())
            .remedy(owner::remedy_at(file, format!("chmod 600 {}", file.display()))));
    }
    let text = Secret::new(fs::read_to_string(file).map_err(|error| bad(reason(&error)))?);
    let first = text.expose().lines().next().unwrap_or_default();
    if first.is_empty() {
        return Err(bad("there is no passphrase in it".into()));
    }
    Ok(Secret::new(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_passphrase_and_salt_make_the_same_key() {
        let cheap = Cost { memory: 8, passes: 1, lanes: 1 };
        let key = |passphrase: &str, salt: &str| {
            derive(&Secret::new(passphrase), salt, cheap).unwrap().bytes().to_vec()
        };
        assert_eq!(key("correct horse", "saltsalt"), key("correct horse", "saltsalt"));
        assert_ne!(key("correct horse", "saltsalt"), key("correct horsf", "saltsalt"));
        assert_ne!(key("correct horse", "saltsalt"), key("correct horse", "saltsalu"));
    }

    #[test]
    fn a_file_cannot_ask_for_all_memory() {
        let greedy = Cost { memory: u32::MAX, passes: 1, lanes: 1 };
        assert!(derive(&Secret::new("x"), "saltsalt", greedy).is_none());
    }
}
