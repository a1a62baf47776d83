//! Where the broker's files lie: the XDG folders, so that a test or a second user is wholly apart.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use directories::ProjectDirs;

use crate::error::{Code, Error, Result};

const NAME: &str = "keystone-broker";
const SOCKET: &str = "broker.sock";

/// The folders and the socket of one user's broker.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The API's socket.
    pub socket: PathBuf,
    /// Known clouds, the agent's log.
    pub state: PathBuf,
    /// `config.toml`.
    pub config: PathBuf,
}

impl Paths {
    /// From the environment: `KSB_SOCK` wins, then `$XDG_RUNTIME_DIR`, `/run/user/UID`, the state folder.
    pub fn from_env() -> Result<Self> {
        let dirs = ProjectDirs::from("", "", NAME).ok_or_else(|| {
            Error::new(Code::Io, "no home folder: HOME is not set and the user has none")
                .remedy("set HOME, or KSB_SOCK and XDG_STATE_HOME and XDG_CONFIG_HOME")
        })?;
        let state = dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).to_owned();
        let socket = match std::env::var_os("KSB_SOCK").filter(|value| !value.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => match dirs.runtime_dir() {
                Some(folder) => folder.join(SOCKET),
                None => user_runtime_folder().unwrap_or_else(|| state.clone()).join(SOCKET),
            },
        };
        Ok(Self { socket, state, config: dirs.config_dir().join("config.toml") })
    }
}

/// `/run/user/UID/keystone-broker`, for callers such as cron whose environment names no runtime folder.
fn user_runtime_folder() -> Option<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let folder = PathBuf::from(format!("/run/user/{uid}"));
    let ours = fs::metadata(&folder).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
    ours.then(|| folder.join(NAME))
}

/// Makes `folder` with mode 0700 and refuses one that another user owns or may write to: whoever can
/// rename the socket's folder can put a socket of their own there.
pub fn private_folder(folder: &Path) -> Result<()> {
    let failed = |error: std::io::Error| Error::new(Code::Io, format!("{}: {error}", folder.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let meta = fs::metadata(folder).map_err(failed)?;
    if meta.uid() != rustix::process::getuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Err(Error::new(
            Code::Io,
            format!("{}: must belong to you and be writable by nobody else", folder.display()),
        )
        .remedy(format!("chmod 700 {}", folder.display())));
    }
    Ok(())
}
