//! `config.toml`: the settings of the system and, above them, the person's own; read by the agent at its start.
//!
//! docs/configuration.md describes each key.

mod file;
mod layers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use url::Url;

use self::file::{File, PerCloud};
use self::layers::Layers;
use crate::error::{Code, Error, Result, reason};
use crate::model::Cloud;
use crate::vault::Wish;

/// The system's own file. No switch and no variable leads past it.
pub const SYSTEM: &str = "/etc/keystone-broker/config.toml";
/// More than people sign in, less than what goes round in circles opens.
const PROMPTS_PER_HOUR: u32 = 20;
const COOL_DOWN: SignedDuration = SignedDuration::from_mins(1);

/// What the files come to.
#[derive(Debug)]
pub struct Config {
    /// The facade's port; 0 is any free one, another with each start.
    pub facade_port: Option<u16>,
    /// Who is to keep the vault's key.
    pub vault: Wish,
    /// When the agent locks itself.
    pub lock: Lock,
    /// Whether a fresh process may take the agent's place: not where it is a part of another program.
    pub makes_room: bool,
    /// How long a session lasts at most.
    pub session_lifetime: Option<SignedDuration>,
    /// How long a lease lives at most.
    pub lease_lifetime: Option<SignedDuration>,
    /// Whether leases may go on without their person.
    pub unattended: bool,
    /// What the person's own file says in vain, each a sentence.
    pub overruled: Vec<String>,
    everywhere: PerCloud,
    clouds: BTreeMap<String, PerCloud>,
    origins: BTreeMap<String, PathBuf>,
    /// The system's file and the person's.
    files: [PathBuf; 2],
}

/// When the agent locks itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// After this long without a request.
    pub idle: Option<SignedDuration>,
    /// With the screen.
    pub on_screen_lock: bool,
    /// Before the computer sleeps.
    pub on_sleep: bool,
}

/// Who may have a browser opened, and how often.
#[derive(Debug, PartialEq, Eq)]
pub struct Prompting<'c> {
    /// These programs, by path or name; all when absent.
    pub programs: Option<&'c [String]>,
    /// At most so many sign-ins for tools within an hour.
    pub per_hour: u32,
    /// The rest after a sign-in that nobody finished; twice as long each time, up to half an hour or this.
    pub cool_down: SignedDuration,
}

impl Config {
    /// The system's file and above it this one, of the person. A missing one means the defaults.
    pub fn load(user: &Path) -> Result<Self> {
        Self::layered(Path::new(SYSTEM), user)
    }

    /// The same with any file for the system's.
    pub fn layered(system: &Path, user: &Path) -> Result<Self> {
        let (theirs, own) = (read(system)?, read(user)?);
        if !own.locked.is_empty() {
            return Err(invalid(user, &format!("locked: only {} may lock keys", system.display())));
        }
        let mut layers = Layers::new(system, user, theirs.locked.clone())?;
        let merged = layers.merged(theirs, own)?;
        for why in &layers.overruled {
            tracing::warn!("{why}");
        }
        Ok(Self {
            facade_port: merged.facade_port,
            vault: merged.vault.unwrap_or_default(),
            lock: Lock {
                idle: merged.lock.idle.and_then(|idle| idle.0),
                on_screen_lock: merged.lock.on_screen_lock.unwrap_or_default(),
                on_sleep: merged.lock.on_sleep.unwrap_or_default(),
            },
            makes_room: true,
            session_lifetime: merged.session.lifetime.and_then(|lifetime| lifetime.0),
            lease_lifetime: merged.lease.lifetime.and_then(|lifetime| lifetime.0),
            unattended: merged.lease.unattended.unwrap_or(true),
            everywhere: merged.everywhere(),
            clouds: merged.clouds,
            overruled: layers.overruled,
            origins: layers.origins,
            files: [system, user].map(Path::to_owned),
        })
    }

    /// Whether another agent could read the files as they are now.
    pub fn check(&self) -> Result<()> {
        let [system, user] = &self.files;
        Self::layered(system, user).map(drop)
    }

    /// The command that opens a sign-in's URL for this cloud.
    pub fn browser(&self, cloud: &Cloud) -> Option<String> {
        self.most(cloud.name.as_deref(), |settings| settings.browser.as_ref()).cloned()
    }

    /// The page that ends the browser's session at this cloud.
    pub fn logout_url(&self, cloud: &Cloud) -> Option<Url> {
        cloud
            .logout_url
            .clone()
            .or_else(|| self.most(cloud.name.as_deref(), |settings| settings.logout_url.as_ref()).cloned())
    }

    /// Whether the cloud of this name has settings of its own.
    pub fn is_about(&self, name: &str) -> bool {
        self.clouds.contains_key(name)
    }

    /// Whether a person is asked before a program gets a token of the cloud of this name, if it has one.
    pub fn confirms(&self, name: Option<&str>) -> bool {
        self.most(name, |settings| settings.confirm.as_ref()).is_some_and(|confirm| *confirm)
    }

    /// Who may have a browser opened for the cloud of this name, if it has one.
    pub fn prompting(&self, name: Option<&str>) -> Prompting<'_> {
        Prompting {
            programs: self.most(name, |settings| settings.prompt.programs.as_ref()).map(Vec::as_slice),
            per_hour: *self
                .most(name, |settings| settings.prompt.per_hour.as_ref())
                .unwrap_or(&PROMPTS_PER_HOUR),
            cool_down: self
                .most(name, |settings| settings.prompt.cool_down.as_ref())
                .map_or(COOL_DOWN, |rest| rest.0),
        }
    }

    /// The file in which a limit stands: a key as in the file, such as `lease.unattended`.
    pub fn origin(&self, key: &str) -> String {
        self.origins.get(key).map_or_else(|| "config.toml".to_owned(), |file| file.display().to_string())
    }

    /// The cloud's own setting before that of all.
    fn most<'c, T>(
        &'c self,
        name: Option<&str>,
        setting: impl Fn(&'c PerCloud) -> Option<&'c T>,
    ) -> Option<&'c T> {
        let own = name.and_then(|name| self.clouds.get(name));
        own.and_then(&setting).or_else(|| setting(&self.everywhere))
    }
}

fn read(path: &Path) -> Result<File> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => return Err(invalid(path, &reason(&error))),
    };
    toml::from_str(&text).map_err(|error| invalid(path, &error.to_string()))
}

fn invalid(path: &Path, why: &str) -> Error {
    Error::new(Code::InvalidConfig, format!("{}: {}", path.display(), why.trim()))
        .remedy(format!("correct {}", path.display()))
}
