//! What is kept at rest, sealed. This module knows how, not what: the broker hands it bytes.
//!
//! One vault per machine and state directory, held by one agent: a home that two hosts share must not make two agents use
//! one refresh token, which the identity provider would take for theft (RFC 9700 section 4.14.2).

pub mod format;
mod inspect;
mod kernel;
mod key;
mod keyring;
mod passphrase;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::api::{Incomplete, KeyKind, VaultReport, VaultState};
use crate::error::{Code, Error, Result, reason};
use crate::formats::vault_contents::StoredLostVault;
use crate::model::{Secret, random_hex};
use crate::platform::files;
use crate::platform::machine;
use crate::sync::lock_unpoisoned;

pub use format::Seal;
use format::{Flaw, Header, KeptBy};
pub use inspect::{is_there, look};
pub use key::Key;
use key::NoKey;
use keyring::Keyring;
pub use keyring::helper::run as run_keyring_helper;
pub use passphrase::Cost;

/// A locked keyring asks its user to unlock it.
const PERSON: Duration = Duration::from_mins(2);
/// A sign-in waits for this.
const SIGN_IN: Duration = Duration::from_secs(15);
/// Far above what any number of sessions takes.
const LARGEST: u64 = 64 << 20;

/// What config.toml wants: `vault = "…"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// The first that there is: a passphrase file that was named, the desktop's keyring, the kernel.
    #[default]
    Auto,
    /// The desktop's keyring or nothing.
    Keyring,
    /// The kernel's keyring.
    Kernel,
    /// A passphrase.
    Passphrase,
    /// Nothing on the disk.
    Memory,
}

/// Where a vault may lie, and how its key is to be kept.
#[derive(Debug, Clone)]
pub struct Place {
    /// The state directory.
    pub folder: PathBuf,
    /// See [`machine::id`].
    pub machine: Option<String>,
    /// What config.toml wants.
    pub wish: Wish,
    /// The file that `KSB_PASSPHRASE_FILE` or a systemd credential names.
    pub passphrase_file: Option<PathBuf>,
    /// What a passphrase for a new vault is to cost whoever tries one.
    pub cost: Cost,
}

/// The vault of this machine, or the reason why there is none.
pub struct Vault {
    place: Place,
    file: PathBuf,
    /// Ours until the agent lets go of it.
    lock: Mutex<Option<File>>,
    keyring: Keyring,
    state: Mutex<State>,
    /// Held while the file is read or written.
    at_work: Mutex<()>,
}

struct State {
    condition: Condition,
    /// What the user should know of how it came to this.
    note: Option<String>,
    /// Why the newest contents are not on the disk.
    problem: Option<String>,
}

enum Condition {
    /// Nothing has been kept yet. What lies there can never be opened; it is put aside under this word, if under any.
    New {
        aside: Option<&'static str>,
    },
    Open(Seal),
    /// There is one, but not its key.
    Sealed(Error),
    /// There is none, and will be none.
    Memory(Error),
}

/// Contents that came out of a vault.
pub type Contents = Zeroizing<Vec<u8>>;

/// What opening a vault comes to.
pub enum Opened {
    /// There was nothing to open.
    Nothing,
    /// What is in it.
    Contents(Contents),
    /// It can never be opened again.
    Lost(Option<Lost>),
}

/// A vault that can never be opened again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Why.
    pub reason: String,
    /// When the last token in it has expired.
    pub expires_at: Timestamp,
}

impl From<Lost> for StoredLostVault {
    fn from(Lost { reason, expires_at }: Lost) -> Self {
        Self { reason, expires_at }
    }
}

impl From<StoredLostVault> for Lost {
    fn from(StoredLostVault { reason, expires_at }: StoredLostVault) -> Self {
        Self { reason, expires_at }
    }
}

impl From<Lost> for Incomplete {
    fn from(Lost { reason, expires_at }: Lost) -> Self {
        let reason =
            format!("a vault was lost, so what was in it can be neither shown nor revoked: {reason}");
        Self { reason, remedy: None, expires_at: Some(expires_at) }
    }
}

impl Vault {
    /// Looks what there is; opens nothing.
    pub fn at(place: Place) -> Self {
        let file = path(&place.folder, place.machine.as_deref());
        let (lock, condition) = match lock(&place, &file) {
            Ok(lock) if file.exists() => {
                (Some(lock), Condition::Sealed(Error::new(Code::VaultSealed, "it was not opened yet")))
            }
            Ok(lock) => (Some(lock), Condition::New { aside: None }),
            Err(why) => (None, Condition::Memory(why)),
        };
        let state = State { condition, note: None, problem: None };
        let (keyring, at_work) = (Keyring::default(), Mutex::default());
        Self { place, file, lock: Mutex::new(lock), keyring, state: Mutex::new(state), at_work }
    }

    /// Whether there is one to be opened.
    pub fn is_sealed(&self) -> bool {
        matches!(lock_unpoisoned(&self.state).condition, Condition::Sealed(_))
    }

    /// What opens it, for a process that goes on in our place.
    pub fn seal(&self) -> Option<(String, Key)> {
        match &lock_unpoisoned(&self.state).condition {
            Condition::Open(seal) => seal.parts(),
            _ => None,
        }
    }

    /// Goes on in the place of a process that had it open.
    pub fn take_over(&self, seal: Seal) {
        if lock_unpoisoned(&self.lock).is_some() {
            lock_unpoisoned(&self.state).condition = Condition::Open(seal);
        }
    }

    /// Lets the next agent have it. Nothing is written any more.
    pub fn release(&self) {
        let _turn = lock_unpoisoned(&self.at_work);
        if lock_unpoisoned(&self.lock).take().is_some() {
            let ended = Error::new(Code::VaultUnusable, "the agent ends");
            lock_unpoisoned(&self.state).condition = Condition::Memory(ended);
        }
    }

    /// Ends a question that the desktop's keyring has not answered yet.
    pub fn stop_asking(&self) {
        self.keyring.stop();
    }

    /// The state directory.
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// Why what lies there is not known, if something does.
    pub fn unopened(&self) -> Option<Error> {
        match &lock_unpoisoned(&self.state).condition {
            Condition::Sealed(why) => Some(why.clone()),
            Condition::Memory(why) if self.file.exists() => Some(why.clone()),
            _ => None,
        }
    }

    /// The reason why it is sealed, where a user's passphrase would open it.
    pub fn wants_passphrase(&self) -> Option<Error> {
        match &lock_unpoisoned(&self.state).condition {
            Condition::Sealed(why) if why.code == Code::VaultSealed => Some(why.clone()),
            _ => None,
        }
    }

    /// Opens it. Blocks: a keyring may ask its user.
    pub fn open(&self, passphrase: Option<&Secret>) -> Result<Opened> {
        let _turn = lock_unpoisoned(&self.at_work);
        if !self.is_sealed() {
            return Ok(Opened::Nothing);
        }
        let opened = self.try_to_open(passphrase);
        let mut state = lock_unpoisoned(&self.state);
        match opened {
            Ok(Attempt::Contents(contents, seal)) => {
                state.condition = Condition::Open(*seal);
                Ok(Opened::Contents(contents))
            }
            Ok(Attempt::Lost { reason, aside, expires_at }) => {
                tracing::warn!(reason, "the vault starts anew");
                (state.condition, state.note) = (Condition::New { aside }, Some(reason.clone()));
                Ok(Opened::Lost(expires_at.map(|expires_at| Lost { reason, expires_at })))
            }
            Err(why) => {
                tracing::warn!(%why, "the vault stays closed");
                state.condition = match why.code {
                    Code::VaultUnusable => Condition::Memory(why.clone()),
                    _ => Condition::Sealed(why.clone()),
                };
                Err(why)
            }
        }
    }

    fn try_to_open(&self, passphrase: Option<&Secret>) -> Result<Attempt> {
        let bytes = match read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let reason = format!("{} was removed", self.file.display());
                return Ok(Attempt::Lost { reason, aside: None, expires_at: None });
            }
            Err(error) => return Err(self.unusable(&reason(&error))),
        };
        let parsed = match format::parse(&bytes) {
            Ok(parsed) => parsed,
            Err(flaw) => return self.flawed(&flaw, None),
        };
        let Header { machine, id, key, .. } = &parsed.header;
        let lost = |aside, reason: &str| Ok(self.lost(Some(&parsed.header), aside, reason));
        if Some(machine) != self.place.machine.as_ref() {
            return Err(foreign(&self.file));
        }
        let key = match key {
            KeptBy::Keyring => match self.keyring.read(id, PERSON) {
                Ok(key) => key,
                Err(NoKey::Gone) => return lost(Some("lost"), "the desktop's keyring has no key for it"),
                Err(NoKey::Unavailable(why)) => return Err(no_answer(&why)),
            },
            KeptBy::Kernel { boot } if *boot != machine::boot() => {
                return lost(None, "the last one's key ended with the reboot");
            }
            KeptBy::Kernel { .. } => match kernel::read(id) {
                Ok(key) => key,
                Err(NoKey::Gone) => return lost(Some("lost"), "the kernel has no key for it"),
                Err(NoKey::Unavailable(why)) => {
                    let why = format!("its key is in the kernel's keyring, which cannot be asked: {why}");
                    return Err(Error::new(Code::VaultUnavailable, why).remedy("ksb unlock"));
                }
            },
            KeptBy::Passphrase { salt, cost } => {
                let passphrase = match (passphrase, &self.place.passphrase_file) {
                    (Some(passphrase), _) => passphrase.clone(),
                    (None, Some(file)) => passphrase::read(file)?,
                    (None, None) => {
                        return Err(Error::new(Code::VaultSealed, "it is sealed with your passphrase")
                            .remedy("ksb unlock"));
                    }
                };
                match passphrase::derive(&passphrase, salt, *cost) {
                    Some(key) => key,
                    None => return self.flawed(&Flaw::Damaged, Some(&parsed.header)),
                }
            }
        };
        match parsed.open(&key) {
            Ok((contents, seal)) => Ok(Attempt::Contents(contents, Box::new(seal))),
            Err(Flaw::WrongKey) if parsed.header.key.kind() == KeyKind::Passphrase => {
                Err(Error::new(Code::VaultSealed, "that is not the passphrase it is sealed with")
                    .remedy("ksb unlock"))
            }
            Err(flaw) => self.flawed(&flaw, Some(&parsed.header)),
        }
    }

    /// A newer program's vault is left for that program; damage is put aside, for repair.
    fn flawed(&self, flaw: &Flaw, header: Option<&Header>) -> Result<Attempt> {
        match flaw {
            Flaw::Newer => Err(newer(&self.file)),
            Flaw::Damaged | Flaw::WrongKey => Ok(self.lost(header, Some("damaged"), "it is damaged")),
        }
    }

    /// What lies there can never be opened again. It stays until something else is kept in its place, so that an agent
    /// that starts before then knows of it, too.
    fn lost(&self, header: Option<&Header>, aside: Option<&'static str>, reason: &str) -> Attempt {
        let written = fs::metadata(&self.file).and_then(|file| file.modified()).ok();
        let written = written.and_then(|time| Timestamp::try_from(time).ok());
        let latest = written.map(|written| written + LONGEST_TOKEN);
        let expires_at = header.and_then(|header| header.expires_at).or(latest);
        Attempt::Lost { reason: reason.to_owned(), aside, expires_at }
    }

    /// Makes room for a new vault.
    fn put_aside(&self, word: &str) -> io::Result<String> {
        let aside = self.file.with_extension(format!("{word}-{}", random_hex::<4>()));
        match fs::rename(&self.file, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(format!("the last one was put aside as {}", aside.display())),
        }
    }

    fn unusable(&self, why: &str) -> Error {
        unusable(&self.file, why)
    }

    /// What came out of it is of no use: it is left as it is, and nothing is kept.
    pub fn disown(&self, why: &str) -> Error {
        let why =
            self.unusable(why).remedy(format!("to start anew: rm {}; ksb agent stop", self.file.display()));
        lock_unpoisoned(&self.state).condition = Condition::Memory(why.clone());
        why
    }

    /// Puts `contents` in the place of what was kept. A failure is shown by [`Self::report`], and costs nothing that is
    /// in memory. Blocks.
    pub fn save(&self, contents: &[u8], expires_at: Option<Timestamp>) {
        let _turn = lock_unpoisoned(&self.at_work);
        let aside = match lock_unpoisoned(&self.state).condition {
            Condition::New { aside } => Some(aside),
            _ => None,
        };
        if let Some(aside) = aside {
            self.begin(aside);
        }
        let file = match &lock_unpoisoned(&self.state).condition {
            Condition::Open(seal) => seal.file(contents, expires_at),
            _ => return,
        };
        let saved = file
            .ok_or_else(|| io::Error::other("the contents could not be sealed"))
            .and_then(|bytes| files::replace(&self.file, &bytes));
        let problem = saved.err().map(|error| format!("{}: {}", self.file.display(), reason(&error)));
        if let Some(problem) = &problem {
            tracing::warn!(problem, "the vault could not be written; everything is kept in memory");
        }
        lock_unpoisoned(&self.state).problem = problem;
    }

    /// Begins a new vault, and puts aside what lies there.
    fn begin(&self, aside: Option<&str>) {
        let made = self.make().and_then(|made| {
            let moved = aside.map(|word| self.put_aside(word)).transpose();
            Ok((made, moved.map_err(|error| self.unusable(&reason(&error)))?))
        });
        let mut state = lock_unpoisoned(&self.state);
        match made {
            Ok(((seal, note), moved)) => {
                state.condition = Condition::Open(seal);
                let notes: Vec<_> = note.or(state.note.take()).into_iter().chain(moved).collect();
                state.note = (!notes.is_empty()).then(|| notes.join("; "));
            }
            Err(why) => state.condition = Condition::Memory(why),
        }
    }

    /// A key for a new vault, and why it is not a better one.
    fn make(&self) -> Result<(Seal, Option<String>)> {
        let wish = match self.place.wish {
            Wish::Auto if self.place.passphrase_file.is_some() => Wish::Passphrase,
            wish => wish,
        };
        let refused = |why: NoKey| match why {
            NoKey::Gone => "it refused".to_owned(),
            NoKey::Unavailable(why) => why,
        };
        let mut note = None;
        if let Wish::Auto | Wish::Keyring = wish {
            match self.kept(KeyKind::Keyring, None) {
                Ok(seal) => return Ok((seal, None)),
                Err(why) => note = Some(format!("the desktop's keyring cannot be used: {}", refused(why))),
            }
        }
        if let Wish::Auto | Wish::Kernel = wish {
            match self.kept(KeyKind::Kernel, None) {
                Ok(seal) => return Ok((seal, note)),
                Err(why) => {
                    let why = format!("the kernel's keyring cannot be used: {}", refused(why));
                    note = Some(note.map_or(why.clone(), |note| format!("{note}; {why}")));
                }
            }
        }
        if wish == Wish::Passphrase {
            let file = self.place.passphrase_file.as_deref();
            let file = file.ok_or_else(|| {
                Error::new(Code::VaultUnusable, "no passphrase was given")
                    .remedy("ksb vault --key passphrase")
            })?;
            let passphrase = passphrase::read(file)?;
            return self
                .kept(KeyKind::Passphrase, Some(&passphrase))
                .map(|seal| (seal, None))
                .map_err(|why| Error::new(Code::VaultUnusable, refused(why)));
        }
        Err(Error::new(Code::VaultUnusable, note.unwrap_or_default()).remedy("ksb vault --key passphrase"))
    }

    /// A new vault's seal, its key given to whoever keeps it.
    fn kept(&self, kind: KeyKind, passphrase: Option<&Secret>) -> Result<Seal, NoKey> {
        let machine = self.place.machine.clone().unwrap_or_default();
        let id = random_hex::<8>();
        let (kept_by, key) = match kind {
            KeyKind::Keyring => {
                let key = Key::random();
                self.keyring.store(&id, &key, SIGN_IN)?;
                (KeptBy::Keyring, key)
            }
            KeyKind::Kernel => {
                let key = Key::random();
                kernel::store(&id, &key)?;
                (KeptBy::Kernel { boot: machine::boot() }, key)
            }
            KeyKind::Passphrase => {
                let (salt, cost) = (random_hex::<16>(), self.place.cost);
                let key = passphrase.and_then(|passphrase| passphrase::derive(passphrase, &salt, cost));
                let key = key.ok_or_else(|| NoKey::Unavailable("no passphrase was given".into()))?;
                (KeptBy::Passphrase { salt, cost }, key)
            }
        };
        Seal::new(machine, id, kept_by, &key)
            .ok_or_else(|| NoKey::Unavailable("it could not be sealed".into()))
    }

    /// Seals `contents` anew with another key, and lets the old one go. Blocks.
    pub fn change_key(
        &self,
        kind: KeyKind,
        passphrase: Option<&Secret>,
        contents: &[u8],
        expires_at: Option<Timestamp>,
    ) -> Result<()> {
        let _turn = lock_unpoisoned(&self.at_work);
        match &lock_unpoisoned(&self.state).condition {
            Condition::Sealed(why) => return Err(why.clone()),
            Condition::Memory(why) if lock_unpoisoned(&self.lock).is_none() => return Err(why.clone()),
            _ => {}
        }
        let seal = self.kept(kind, passphrase).map_err(|why| match why {
            NoKey::Unavailable(why) => Error::new(Code::VaultUnavailable, why),
            NoKey::Gone => Error::new(Code::VaultUnavailable, "it refused"),
        })?;
        let bytes = seal.file(contents, expires_at).ok_or_else(|| self.unusable("it could not be sealed"))?;
        files::replace(&self.file, &bytes).map_err(|error| self.unusable(&reason(&error)))?;
        let old = {
            let mut state = lock_unpoisoned(&self.state);
            (state.note, state.problem) = (None, None);
            std::mem::replace(&mut state.condition, Condition::Open(seal))
        };
        if let Condition::Open(old) = old {
            let id = &old.header().id;
            let deleted = match old.header().key {
                KeptBy::Keyring => self.keyring.delete(id, SIGN_IN),
                KeptBy::Kernel { .. } => kernel::delete(id),
                KeptBy::Passphrase { .. } => Ok(()),
            };
            if let Err(NoKey::Unavailable(why)) = deleted {
                tracing::info!(why, "an old key could not be removed");
            }
        }
        Ok(())
    }

    /// What is in force, and why.
    pub fn report(&self) -> VaultReport {
        let State { condition, note, problem } = &*lock_unpoisoned(&self.state);
        let (state, key, why) = match condition {
            Condition::New { .. } => (VaultState::New, None, None),
            Condition::Open(seal) => (VaultState::Open, Some(seal.header().key.kind()), None),
            Condition::Sealed(why) => (VaultState::Sealed, None, Some(why)),
            Condition::Memory(why) => (VaultState::Memory, None, Some(why)),
        };
        VaultReport {
            state,
            key,
            file: self.file.display().to_string(),
            reason: why.map(|why| why.detail.clone()).or_else(|| note.clone()),
            remedy: why.and_then(|why| why.remedy.clone()),
            problem: problem.clone(),
        }
    }
}

enum Attempt {
    Contents(Contents, Box<Seal>),
    /// There is nothing to be had from it, for this reason, and its tokens live until then at the latest.
    Lost {
        reason: String,
        aside: Option<&'static str>,
        expires_at: Option<Timestamp>,
    },
}

/// Far above how long Keystone's tokens usually live: for a vault that does not say.
const LONGEST_TOKEN: SignedDuration = SignedDuration::from_hours(24);

/// Where the vault of this machine lies, or would.
fn path(folder: &Path, machine: Option<&str>) -> PathBuf {
    folder.join(format!("vault-{}", machine.unwrap_or(machine::UNKNOWN)))
}

fn unusable(file: &Path, why: &str) -> Error {
    Error::new(Code::VaultUnusable, format!("{}: {why}", file.display()))
}

fn newer(file: &Path) -> Error {
    unusable(file, "a newer ksb wrote it")
        .remedy(format!("use that version; or, to start anew: rm {}; ksb agent stop", file.display()))
}

fn foreign(file: &Path) -> Error {
    unusable(file, "it was made on another machine, where its sessions may still be in use")
        .remedy(format!("rm {}; ksb agent stop; ksb login", file.display()))
}

/// The keyring gives no key, and may do so later.
fn no_answer(why: &str) -> Error {
    let why = format!("its key is in the desktop's keyring, which cannot be asked: {why}");
    Error::new(Code::VaultUnavailable, why)
        .remedy("unlock the keyring (log in to the desktop), then: ksb unlock")
}

/// Makes the vault ours, if there may be one.
fn lock(place: &Place, file: &Path) -> Result<File> {
    let none = |why: &str| Error::new(Code::VaultUnusable, why);
    if place.wish == Wish::Memory {
        return Err(none("config.toml says `vault = \"memory\"`"));
    }
    if place.machine.is_none() {
        return Err(none("this machine has no /etc/machine-id").remedy("systemd-machine-id-setup"));
    }
    let path = file.with_extension("lock");
    let mut options = OpenOptions::new();
    let lock = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.map_err(|error| none(&format!("{}: {}", path.display(), reason(&error))))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(none("another agent of yours has this machine's vault")
            .remedy("end that one, then: ksb agent stop")),
        Err(TryLockError::Error(error)) => Err(none(&format!("{}: {}", path.display(), reason(&error)))),
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}
