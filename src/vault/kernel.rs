//! The kernel's keyring of this user (user-keyring(7)): it keeps a vault's key until the reboot.

use linux_keyutils::{KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};
use zeroize::Zeroizing;

use super::key::{Key, NoKey, SERVICE};

/// Stores a vault's key.
pub(super) fn store(id: &str, key: &Key) -> Result<(), NoKey> {
    add(id, key).map_err(no_key)
}

/// The key that was stored.
pub(super) fn read(id: &str) -> Result<Key, NoKey> {
    let bytes = find(id).and_then(|key| key.read_to_vec()).map_err(no_key)?;
    Key::of(&Zeroizing::new(bytes)).ok_or(NoKey::Gone)
}

/// Deletes the key, if it is there.
pub(super) fn delete(id: &str) -> Result<(), NoKey> {
    find(id).and_then(|key| key.invalidate()).map_err(no_key)
}

/// Whether the kernel has it.
pub(super) fn has(id: &str) -> Result<(), NoKey> {
    find(id).map(drop).map_err(no_key)
}

/// The user's own keyring, not the session's: an agent that systemd or cron started must find it too.
fn of_the_user() -> Result<KeyRing, KeyError> {
    KeyRing::from_special_id(KeyRingIdentifier::User, false)
}

fn find(id: &str) -> Result<linux_keyutils::Key, KeyError> {
    of_the_user()?.search(&description(id))
}

fn add(id: &str, key: &Key) -> Result<(), KeyError> {
    let added = of_the_user()?.add_key(&description(id), key.bytes())?;
    // Without this only those may read it who have the user's keyring linked to their session's.
    let ours = KeyPermissionsBuilder::builder().posessor(Permission::ALL).user(Permission::ALL).build();
    added.set_perms(ours)
}

fn description(id: &str) -> String {
    format!("{SERVICE}:vault:{id}")
}

fn no_key(error: KeyError) -> NoKey {
    match error {
        KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked => NoKey::Gone,
        other => NoKey::Unavailable(format!("{other:?}")),
    }
}
