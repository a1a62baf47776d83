//! `config.toml`: the settings of the system and, above them, the user's own; read by the agent at its start.
//!
//! docs/configuration.md describes each key.

mod file;
mod system_policy;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use url::Url;

use self::file::{CloudSettings, File, HostLimits};
use self::system_policy::SystemPolicy;
use crate::error::{Code, Error, Result, reason};
use crate::model::Cloud;
use crate::vault::Wish;

/// The system's own file. No switch and no variable leads past it.
pub const SYSTEM: &str = "/etc/keystone-broker/config.toml";
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
    /// Whether leases may go on without their user.
    pub unattended: bool,
    /// What the user's own file says in vain, each a sentence.
    pub overruled: Vec<String>,
    browser: Option<String>,
    limits: HostLimits,
    hosts: BTreeMap<String, HostLimits>,
    clouds: BTreeMap<String, CloudSettings>,
    origins: BTreeMap<String, PathBuf>,
    /// The system's file and the user's.
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

/// Which programs may have a browser opened, and how often.
#[derive(Debug, PartialEq, Eq)]
pub struct Prompting<'c> {
    /// These programs, by path or name; all when absent.
    pub programs: Option<&'c [String]>,
    /// The pause after a sign-in that a program began, however it ended.
    pub cool_down: SignedDuration,
}

impl Config {
    /// The system's file and above it this one, of the user. A missing one means the defaults.
    pub fn load(user: &Path) -> Result<Self> {
        Self::layered(Path::new(SYSTEM), user)
    }

    /// The same with any file for the system's.
    pub fn layered(system: &Path, user: &Path) -> Result<Self> {
        let (theirs, own) = (read(system)?, read(user)?);
        let mut policy = SystemPolicy::new(system, user);
        let merged = policy.merge(theirs, own);
        for why in &policy.overruled {
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
            limits: merged.limits(),
            browser: merged.browser,
            hosts: merged.hosts,
            clouds: merged.clouds,
            overruled: policy.overruled,
            origins: policy.origins,
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
        let own = self.settings(cloud).and_then(|settings| settings.browser.clone());
        own.or_else(|| self.browser.clone())
    }

    /// The page that ends the browser's session at this cloud.
    pub fn logout_url(&self, cloud: &Cloud) -> Option<Url> {
        cloud.logout_url.clone().or_else(|| self.settings(cloud)?.logout_url.clone())
    }

    /// Whether the user is asked before a program gets a token of this cloud.
    pub fn requires_confirmation(&self, cloud: &Cloud) -> bool {
        self.limits_of(cloud).confirm.unwrap_or_default()
    }

    /// Which programs may have a browser opened for this cloud.
    pub fn prompting(&self, cloud: &Cloud) -> Prompting<'_> {
        let prompt = &self.limits_of(cloud).prompt;
        Prompting {
            programs: prompt.programs.as_deref(),
            cool_down: prompt.cool_down.map_or(COOL_DOWN, |pause| pause.0),
        }
    }

    fn settings(&self, cloud: &Cloud) -> Option<&CloudSettings> {
        self.clouds.get(cloud.name.as_deref()?)
    }

    /// By the host of Keystone: a caller chooses the name that a cloud has.
    fn limits_of(&self, cloud: &Cloud) -> &HostLimits {
        cloud.auth_url.host_str().and_then(|host| self.hosts.get(host)).unwrap_or(&self.limits)
    }

    /// The file in which a limit stands: a key as in the file, such as `lease.unattended`.
    pub fn origin(&self, key: &str) -> String {
        self.origins.get(key).map_or_else(|| "config.toml".to_owned(), |file| file.display().to_string())
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
