//! Where the agent's files lie: the XDG directories, so that a test or a second user is wholly apart.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::socket::is_served;
use super::{machine, owner, state};
use crate::error::{Code, Error, Result, reason};
use crate::sync::lock_unpoisoned;

const NAME: &str = "keystone-broker";
const SOCKET: &str = "broker.sock";
/// Where each user of this machine may make a directory, and no home lies.
const SHARED: &str = "/tmp";

const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// The directories and sockets of one user's agent.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The API's socket of an agent that is started now.
    pub socket: PathBuf,
    /// Where the agent listens if that cannot be, in this order. One that was started in another environment may listen
    /// at any of them.
    pub fallbacks: Vec<PathBuf>,
    /// Known clouds, the agent's log.
    pub state: PathBuf,
    /// Why nothing can be kept in a home: the state directory is one that others share, and sign-ins stay in memory.
    pub homeless: Option<Homeless>,
    /// `config.toml`.
    pub config: PathBuf,
}

/// Why nothing can be kept in a home, and what helps.
#[derive(Debug, Clone)]
pub struct Homeless {
    /// The reason.
    pub why: String,
    /// The remedy.
    pub remedy: &'static str,
}

impl Paths {
    /// From the environment: `KSB_SOCK` alone, else `$XDG_RUNTIME_DIR`, `/run/user/UID` and `/tmp/keystone-broker-UID`, so
    /// far as they are there.
    pub fn from_env() -> Result<Self> {
        let (state, homeless) = match state::usual(NAME) {
            Ok(state) => (state, None),
            // The same in whatever environment, so that commands find each other's agent.
            Err(why) => (shared_directory().join("state"), Some(why)),
        };
        let usual = || {
            let below = runtime_directories().map(|directory| directory.join(NAME));
            below.chain([shared_directory()]).map(|directory| directory.join(SOCKET)).collect()
        };
        let mut fallbacks: Vec<_> = named_socket().map_or_else(usual, |named| vec![named]);
        let socket = fallbacks.remove(0);
        Ok(Self { config: config_directory(&state).join("config.toml"), socket, fallbacks, state, homeless })
    }

    /// Where an agent may listen, the best first.
    pub fn sockets(&self) -> impl Iterator<Item = &Path> {
        [&self.socket].into_iter().chain(&self.fallbacks).map(PathBuf::as_path)
    }

    /// The socket of the agent that runs, else of the one to be started.
    pub fn reachable_socket(&self) -> Result<&Path> {
        let socket = match self.fallbacks.iter().find(|socket| self.has_agent(socket)) {
            Some(elsewhere) if !is_served(&self.socket) => elsewhere,
            _ => &self.socket,
        };
        let directory = socket.parent().unwrap_or(Path::new("/"));
        if directory == shared_directory() && directory.symlink_metadata().is_ok() {
            check_shared(directory)?;
        }
        Ok(socket)
    }

    /// Whether an agent serves a fallback that keeps its state where we look for it: that of another home is not ours.
    fn has_agent(&self, socket: &Path) -> bool {
        let owner = fs::read_to_string(lock_of(socket)).unwrap_or_default();
        let is_of_this_home = owner.lines().nth(1).is_some_and(|state| Path::new(state) == self.state);
        is_of_this_home
            && check_private(socket.parent().unwrap_or(Path::new("/"))).is_ok()
            && is_served(socket)
    }

    /// A file in the state directory, which machines with one home must not share: `STEM-MACHINE` and the extension.
    pub fn of_this_machine(&self, stem: &str, extension: &str) -> PathBuf {
        self.state.join(machine::file_name(stem, extension))
    }

    /// The agent's log.
    pub fn agent_log(&self) -> PathBuf {
        self.of_this_machine("agent", ".log")
    }
}

/// Where the user's settings are; where nothing can be read, beside the state.
fn config_directory(state: &Path) -> PathBuf {
    let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = named.or_else(|| Some(state::home().ok()?.join(".config"))).map(|base| base.join(NAME));
    // A file that is not there may come; one that cannot be looked for never does.
    let can_be_read = |path: &PathBuf| {
        fs::metadata(path).map_or_else(|error| error.kind() == std::io::ErrorKind::NotFound, |_| true)
    };
    usual.filter(can_be_read).unwrap_or_else(|| state.to_owned())
}

/// The directory of the API's socket, shared by all that keep something there. It may change while the agent runs.
#[derive(Debug, Clone)]
pub struct RuntimeDirectory(Arc<Mutex<PathBuf>>);

impl RuntimeDirectory {
    /// That one, until it changes.
    pub fn new(directory: &Path) -> Self {
        Self(Arc::new(Mutex::new(directory.to_owned())))
    }

    /// Has everything that is made from now on lie in another one.
    pub fn change(&self, directory: &Path) {
        directory.clone_into(&mut lock_unpoisoned(&self.0));
    }

    /// As it is now.
    pub fn path(&self) -> PathBuf {
        lock_unpoisoned(&self.0).clone()
    }
}

/// The file of the clouds that are known, below a state directory.
pub fn known_clouds_in(state: &Path) -> PathBuf {
    state.join(machine::file_name("known-clouds", ".json"))
}

/// The file whose lock an agent holds for as long as it listens there. It says the agent's process id, and on the second
/// line its state directory.
pub fn lock_of(socket: &Path) -> PathBuf {
    socket.with_extension("lock")
}

/// `KSB_SOCK`.
pub fn named_socket() -> Option<PathBuf> {
    let named = std::env::var_os("KSB_SOCK").filter(|value| !value.is_empty())?;
    Some(std::path::absolute(&named).unwrap_or_else(|_| named.into()))
}

/// `$XDG_RUNTIME_DIR` and `/run/user/UID`, if they are directories of ours. Batch jobs have a variable that names nothing;
/// cron and `su` have none, or another user's.
pub fn runtime_directories() -> impl Iterator<Item = PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    let usual = Some(usual).filter(|usual| named.as_ref() != Some(usual));
    let ours = move |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
    named.into_iter().chain(usual).filter(ours)
}

fn shared_directory() -> PathBuf {
    Path::new(SHARED).join(format!("{NAME}-{}", rustix::process::getuid().as_raw()))
}

/// Makes a directory with mode 0700, and refuses one that another user may change: a user who can rename the socket's
/// directory can put another socket there.
pub fn make_private(directory: &Path) -> Result<()> {
    if let Some(shared) = directory.parent().filter(|parent| *parent == shared_directory()) {
        make_private(shared)?;
    }
    let failed = |error: std::io::Error| Error::io(directory.display(), &error);
    DirBuilder::new().recursive(true).mode(0o700).create(directory).or_else(|error| {
        // `create` follows a link, and refuses a file: what it is is said below.
        if directory.symlink_metadata().is_ok() { Ok(()) } else { Err(failed(error)) }
    })?;
    check_private(directory)
}

fn check_private(directory: &Path) -> Result<()> {
    if directory == shared_directory() {
        return check_shared(directory);
    }
    let why = match fs::metadata(directory) {
        Err(error) => {
            return Err(Error::io(directory.display(), &error));
        }
        Ok(meta) if meta.uid() != rustix::process::getuid().as_raw() => {
            return Err(unsafe_directory(directory, &format!("it belongs to user id {}", meta.uid()))
                .remedy(owner::remedy(meta.uid())));
        }
        Ok(meta) if meta.mode() & OTHERS_WRITE != 0 => "other users may change it",
        Ok(_) => return Ok(()),
    };
    Err(unsafe_directory(directory, why).remedy(format!("chmod 700 {}", directory.display())))
}

/// Unlike a directory that cannot be used this is not passed over in silence.
fn unsafe_directory(directory: &Path, why: &str) -> Error {
    Error::new(Code::NotAllowed, format!("{} is not safe to use: {why}", directory.display()))
}

/// Any user may have made the name first, as a link to a directory of ours as well.
fn check_shared(directory: &Path) -> Result<()> {
    let ours = rustix::process::getuid().as_raw();
    let why = match fs::symlink_metadata(directory) {
        Err(error) => reason(&error),
        Ok(meta) if meta.uid() != ours => format!("it belongs to user id {}", meta.uid()),
        Ok(meta) if !meta.is_dir() => "it is not a directory".to_owned(),
        Ok(meta) if meta.mode() & OTHERS_WRITE != 0 => "other users may change it".to_owned(),
        Ok(_) => match replaceable_by(directory) {
            Some(above) => format!("other users may replace it, as {} is not yours alone", above.display()),
            None => return Ok(()),
        },
    };
    Err(unsafe_directory(directory, &why)
        .remedy("set XDG_RUNTIME_DIR to a private directory of yours, or KSB_SOCK to a socket in one"))
}

/// The directory above `path` in which another user may put something else in its place.
pub fn replaceable_by(path: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    // In a user namespace root's files may show as another user's: the owner of `/` could do anything anyway.
    let root = fs::metadata("/").map_or(0, |root| root.uid());
    let trusted = [0, root, rustix::process::getuid().as_raw()];
    let replaceable = path.ancestors().skip(1).find(|above| {
        fs::metadata(above).is_ok_and(|meta| {
            let open = meta.mode() & OTHERS_WRITE != 0 && meta.mode() & STICKY == 0;
            open || !trusted.contains(&meta.uid())
        })
    });
    replaceable.map(Path::to_owned)
}
