//! The key that opens a vault, and who keeps it.

use std::sync::mpsc;
use std::time::Duration;

use keyring_core::api::CredentialStoreApi;
use keyring_core::{Entry, Error as KeyringError};
use linux_keyutils::{KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};
use zeroize::{Zeroize, Zeroizing};

/// Under this name keyrings show our keys to people.
pub(super) const SERVICE: &str = "keystone-broker";

/// 256 bits, wiped when dropped.
pub struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// A new one.
    ///
    /// # Panics
    /// When the system has no randomness to give: nothing safe can follow.
    pub fn random() -> Self {
        let mut key = Self::empty();
        getrandom::fill(key.bytes_mut()).expect("the operating system gives random bytes");
        key
    }

    /// Zeroes, to be filled.
    pub(super) fn empty() -> Self {
        Self(Zeroizing::new([0; 32]))
    }

    /// From exactly 32 bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let mut key = Self::empty();
        (bytes.len() == 32).then(|| key.bytes_mut().copy_from_slice(bytes))?;
        Some(key)
    }

    /// The bytes, for whoever is to have it next.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

/// Why a keeper gave no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoKey {
    /// It answers, and has no such key.
    Gone,
    /// It does not answer, or refuses; in a few words.
    Unavailable(String),
}

/// Where keys are kept that no person has to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeper {
    /// The desktop's keyring, by the Secret Service of freedesktop.org.
    Keyring,
    /// The kernel's keyring of this user (user-keyring(7)): until the reboot.
    Kernel,
}

impl Keeper {
    /// Gives a key to be kept.
    pub(super) fn keep(self, id: &str, key: &Key, patience: Duration) -> Result<(), NoKey> {
        match self {
            Self::Keyring => {
                let key = Zeroizing::new(key.bytes().to_vec());
                in_keyring(id, patience, move |entry| entry.set_secret(&key))
            }
            Self::Kernel => kernel_keep(id, key).map_err(kernel_says),
        }
    }

    /// The key that was kept.
    pub(super) fn give(self, id: &str, patience: Duration) -> Result<Key, NoKey> {
        let mut bytes = match self {
            Self::Keyring => in_keyring(id, patience, Entry::get_secret)?,
            Self::Kernel => kernel_key(id).and_then(|key| key.read_to_vec()).map_err(kernel_says)?,
        };
        let key = Key::of(&bytes).ok_or(NoKey::Gone);
        bytes.zeroize();
        key
    }

    /// Lets it go, if it is there.
    pub(super) fn forget(self, id: &str, patience: Duration) {
        let gone = match self {
            Self::Keyring => in_keyring(id, patience, Entry::delete_credential),
            Self::Kernel => kernel_key(id).and_then(|key| key.invalidate()).map_err(kernel_says),
        };
        if let Err(NoKey::Unavailable(why)) = gone {
            tracing::info!(why, "an old key could not be removed");
        }
    }
}

/// What a keyring knows a vault's key by, besides [`SERVICE`].
pub(super) fn in_keyring_as(id: &str) -> String {
    format!("vault {id}")
}

/// Asks the Secret Service, by a connection that ends with the question. A locked keyring asks the person to unlock it,
/// so the answer may take a while or never come: that thread is left to itself then.
fn in_keyring<T: Send + 'static>(
    id: &str,
    patience: Duration,
    ask: impl FnOnce(&Entry) -> keyring_core::Result<T> + Send + 'static,
) -> Result<T, NoKey> {
    let (id, (answer, wait)) = (in_keyring_as(id), mpsc::channel());
    std::thread::spawn(move || {
        let answered = match zbus_secret_service_keyring_store::Store::new() {
            Ok(store) => store.build(SERVICE, &id, None).and_then(|entry| ask(&entry)).map_err(no_key),
            Err(error) => {
                tracing::debug!(%error, "no Secret Service");
                Err(NoKey::Unavailable("there is none in this session".into()))
            }
        };
        answer.send(answered).ok();
    });
    match wait.recv_timeout(patience) {
        Ok(answered) => answered,
        Err(_) => Err(NoKey::Unavailable(format!(
            "it did not answer within {} s; is it locked?",
            patience.as_secs()
        ))),
    }
}

fn no_key(error: KeyringError) -> NoKey {
    match error {
        KeyringError::NoEntry => NoKey::Gone,
        KeyringError::NoStorageAccess(_) => NoKey::Unavailable("it is locked".into()),
        other => NoKey::Unavailable(innermost(&other)),
    }
}

/// What is at the bottom of an error: the layers above it only say that there is one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// The user's own keyring, not the session's: an agent that systemd or cron started must find it too.
fn kernel() -> Result<KeyRing, KeyError> {
    KeyRing::from_special_id(KeyRingIdentifier::User, false)
}

fn kernel_key(id: &str) -> Result<linux_keyutils::Key, KeyError> {
    kernel()?.search(&description(id))
}

/// Whether the kernel has it.
pub(super) fn kernel_has(id: &str) -> Result<(), NoKey> {
    kernel_key(id).map(drop).map_err(kernel_says)
}

fn kernel_keep(id: &str, key: &Key) -> Result<(), KeyError> {
    let kept = kernel()?.add_key(&description(id), key.bytes())?;
    // Without this only those may read it who have the user's keyring linked to their session's.
    let ours = KeyPermissionsBuilder::builder().posessor(Permission::ALL).user(Permission::ALL).build();
    kept.set_perms(ours)
}

fn description(id: &str) -> String {
    format!("{SERVICE}:vault:{id}")
}

fn kernel_says(error: KeyError) -> NoKey {
    match error {
        KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked => NoKey::Gone,
        other => NoKey::Unavailable(format!("{other:?}")),
    }
}
