//! The vault's file: two lines that say what it is, then what is sealed.
//!
//! ```text
//! keystone-broker vault 1
//! {"machine":"…","id":"…","key":{"kept_by":"keyring"},"wrapped":"…"}
//! <nonce, 24 bytes> <XChaCha20-Poly1305 of the contents, the two lines as associated data>
//! ```
//!
//! The contents are sealed with a random key of this file alone; `wrapped` is that key, sealed with the one that the
//! keyring, the kernel or the passphrase gives.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::key::Key;
use super::passphrase::Cost;
use crate::api::KeyKind;

const FORMAT: &str = "keystone-broker vault ";
const VERSION: &str = "1";
const NONCE: usize = 24;

/// What anybody may read of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The machine that it was made on (see `platform::machine`).
    pub machine: String,
    /// Names the key where it is kept.
    pub id: String,
    /// How the key is had.
    pub key: KeptBy,
    /// The key of the contents, sealed; nonce first.
    wrapped: String,
    /// When the last token in it has expired: what can be said of a vault whose key is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Header {
    /// The two lines.
    fn lines(&self) -> Option<String> {
        Some(format!("{FORMAT}{VERSION}\n{}\n", serde_json::to_string(self).ok()?))
    }
}

/// How the key that wraps the contents' key is had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kept_by", rename_all = "snake_case")]
pub enum KeptBy {
    /// The desktop's keyring.
    Keyring,
    /// The kernel, until the reboot that changes `boot`.
    Kernel {
        /// `/proc/sys/kernel/random/boot_id` of that time.
        boot: String,
    },
    /// Made of a passphrase by Argon2id (RFC 9106).
    Passphrase {
        /// Random, for each vault.
        salt: String,
        /// What it costs to try one.
        #[serde(flatten)]
        cost: Cost,
    },
}

impl KeptBy {
    /// The kind of key, without its parameters.
    pub fn kind(&self) -> KeyKind {
        match self {
            Self::Keyring => KeyKind::Keyring,
            Self::Kernel { .. } => KeyKind::Kernel,
            Self::Passphrase { .. } => KeyKind::Passphrase,
        }
    }
}

/// Why a file is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// Not a vault, cut short, or changed by somebody.
    Damaged,
    /// Of a program that came after this one.
    Newer,
    /// Sealed with another key.
    WrongKey,
}

/// A vault with its key: what it takes to seal contents.
pub struct Seal {
    header: Header,
    contents_key: Key,
}

/// Takes a file apart as far as that goes without a key.
pub fn parse(file: &[u8]) -> Result<Parsed<'_>, Flaw> {
    let (first, rest) = split_line(file).ok_or(Flaw::Damaged)?;
    let version = first.strip_prefix(FORMAT).ok_or(Flaw::Damaged)?;
    if version != VERSION {
        // A version is a number: anything else is no vault of any time.
        return Err(if version.parse::<u32>().is_ok_and(|it| it > 1) { Flaw::Newer } else { Flaw::Damaged });
    }
    let (second, sealed) = split_line(rest).ok_or(Flaw::Damaged)?;
    let header = serde_json::from_str(second).map_err(|_| Flaw::Damaged)?;
    let lines = file.len() - sealed.len();
    Ok(Parsed { header, lines: &file[..lines], sealed })
}

/// A file whose lines make sense.
pub struct Parsed<'a> {
    /// The second line.
    pub header: Header,
    lines: &'a [u8],
    sealed: &'a [u8],
}

impl Parsed<'_> {
    /// The contents, and what seals the next ones.
    pub fn open(&self, key: &Key) -> Result<(Zeroizing<Vec<u8>>, Seal), Flaw> {
        let wrapped = BASE64_STANDARD.decode(&self.header.wrapped).map_err(|_| Flaw::Damaged)?;
        let unwrapped = unseal(key, &wrapped, self.header.id.as_bytes()).ok_or(Flaw::WrongKey)?;
        let contents_key = Key::of(&unwrapped).ok_or(Flaw::Damaged)?;
        let contents = unseal(&contents_key, self.sealed, self.lines).ok_or(Flaw::Damaged)?;
        Ok((contents, Seal { header: self.header.clone(), contents_key }))
    }
}

impl Seal {
    /// For a new vault, whose key is kept as `kept_by` says.
    pub fn new(machine: String, id: String, kept_by: KeptBy, key: &Key) -> Option<Self> {
        let contents_key = Key::random();
        let wrapped = BASE64_STANDARD.encode(seal(key, contents_key.bytes(), id.as_bytes())?);
        let header = Header { machine, id, key: kept_by, wrapped, expires_at: None };
        Some(Self { header, contents_key })
    }

    /// From what [`Self::parts`] gave.
    pub fn of(lines: &str, contents_key: Key) -> Option<Self> {
        let (_, rest) = split_line(lines.as_bytes())?;
        let header = serde_json::from_slice(rest).ok()?;
        Some(Self { header, contents_key })
    }

    /// What another process needs to go on with it.
    pub fn parts(&self) -> Option<(String, Key)> {
        let mut key = Key::empty();
        key.bytes_mut().copy_from_slice(self.contents_key.bytes());
        Some((self.header.lines()?, key))
    }

    /// What anybody may read of it.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The whole file with these contents, the last token of which has expired at that time.
    pub fn file(&self, contents: &[u8], expires_at: Option<Timestamp>) -> Option<Vec<u8>> {
        let header = Header { expires_at, ..self.header.clone() };
        let mut file = header.lines()?.into_bytes();
        file.extend(seal(&self.contents_key, contents, &file)?);
        Some(file)
    }
}

fn seal(key: &Key, plain: &[u8], with: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).ok()?;
    let payload = Payload { msg: plain, aad: with };
    let sealed = cipher(key).encrypt(XNonce::from_slice(&nonce), payload).ok()?;
    Some([&nonce[..], &sealed].concat())
}

fn unseal(key: &Key, sealed: &[u8], with: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE)?;
    let payload = Payload { msg: sealed, aad: with };
    cipher(key).decrypt(XNonce::from_slice(nonce), payload).ok().map(Zeroizing::new)
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.bytes().into())
}

fn split_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vault(key: &Key) -> Seal {
        Seal::new("here".into(), "id".into(), KeptBy::Keyring, key).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_sealed_comes_out(contents: Vec<u8>) {
            let key = Key::random();
            let file = vault(&key).file(&contents, None).unwrap();
            let (opened, seal) = parse(&file).unwrap().open(&key).unwrap();
            prop_assert_eq!(&*opened, &contents);
            // And again by the seal that came with it.
            let next = seal.file(b"next", Some(Timestamp::UNIX_EPOCH)).unwrap();
            prop_assert_eq!(&**parse(&next).unwrap().open(&key).unwrap().0, b"next");
        }

        #[test]
        fn a_change_of_any_bit_is_noticed(contents: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let key = Key::random();
            let mut file = vault(&key).file(&contents, None).unwrap();
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            let opened = parse(&file).and_then(|parsed| parsed.open(&key).map(|_| ()));
            prop_assert!(opened.is_err());
        }

        #[test]
        fn a_file_cut_short_is_noticed(contents: Vec<u8>, at: prop::sample::Index) {
            let key = Key::random();
            let file = vault(&key).file(&contents, None).unwrap();
            let cut = &file[..at.index(file.len())];
            prop_assert!(parse(cut).and_then(|parsed| parsed.open(&key).map(|_| ())).is_err());
        }

        #[test]
        fn whatever_lies_there_is_no_panic(file: Vec<u8>) {
            prop_assert!(parse(&file).and_then(|parsed| parsed.open(&Key::random()).map(|_| ())).is_err());
        }
    }

    #[test]
    fn another_key_opens_nothing_and_is_not_called_damage() {
        let file = vault(&Key::random()).file(b"secret", None).unwrap();
        assert_eq!(parse(&file).unwrap().open(&Key::random()).err(), Some(Flaw::WrongKey));
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        assert_eq!(parse(b"keystone-broker vault 2\nwhatever").err(), Some(Flaw::Newer));
        assert_eq!(parse(b"keystone-broker vault x\nwhatever").err(), Some(Flaw::Damaged));
        assert_eq!(parse(b"").err(), Some(Flaw::Damaged));
    }

    #[test]
    fn a_vault_of_every_version_opens() {
        let kernel = KeptBy::Kernel { boot: "b00t".into() };
        let passphrase = KeptBy::Passphrase { salt: "c2FsdA==".into(), cost: Cost::RECOMMENDED };
        let examples = [
            (KeptBy::Keyring, include_str!("../../tests/formats/vault-1-keyring.b64")),
            (kernel, include_str!("../../tests/formats/vault-1-kernel.b64")),
            (passphrase, include_str!("../../tests/formats/vault-1-passphrase.b64")),
        ];
        for (kept_by, example) in examples {
            let file = BASE64_STANDARD.decode(example.trim()).unwrap();
            let parsed = parse(&file).unwrap();
            let expires_at = Some(Timestamp::UNIX_EPOCH);
            assert_eq!((&parsed.header.key, parsed.header.expires_at), (&kept_by, expires_at));
            assert_eq!(&**parsed.open(&Key::of(&[7; 32]).unwrap()).unwrap().0, b"contents");
        }
    }

    #[test]
    fn the_same_contents_are_sealed_differently_each_time() {
        let seal = vault(&Key::random());
        assert_ne!(seal.file(b"same", None), seal.file(b"same", None));
    }
}
