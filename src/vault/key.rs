//! The key that opens a vault.

use zeroize::Zeroizing;

/// Under this name keyrings show our keys to people.
pub(super) const SERVICE: &str = "keystone-broker";

/// 256 bits, wiped when dropped.
#[derive(Clone)]
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
