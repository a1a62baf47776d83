//! The state directory, or why there is none. `plugin-shim/keystoneauth_broker/agent.py` has the same rule.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::owner;
use super::paths::Homeless;

/// `$XDG_STATE_HOME/keystone-broker`, else below `HOME` or the home that the system has for the user. Containers have
/// users without a home, and homes that cannot be written.
pub(super) fn usual(name: &str) -> Result<PathBuf, Homeless> {
    let directory = base()?.join(name);
    check(&directory)?;
    Ok(directory)
}

fn base() -> Result<PathBuf, Homeless> {
    let named = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.map_or_else(|| Ok(home()?.join(".local/state")), Ok)
}

/// A home of the user's own.
pub(super) fn home() -> Result<PathBuf, Homeless> {
    let home = env::home_dir().unwrap_or_default();
    if home.as_os_str().is_empty() {
        return Err(no_home(format!("user {} has no home", rustix::process::getuid().as_raw())));
    }
    if !home.is_absolute() || home == Path::new("/") {
        return Err(no_home(format!("HOME is {}", home.display())));
    }
    Ok(home)
}

/// Whether it is a directory that may be written, or could be made.
fn check(directory: &Path) -> Result<(), Homeless> {
    for path in directory.ancestors() {
        match fs::metadata(path) {
            Ok(meta) if !meta.is_dir() => {
                return Err(no_home(format!("{} is not a directory", path.display())));
            }
            // The owner could not use files that root makes there.
            Ok(meta) if rustix::process::geteuid().is_root() && meta.uid() != 0 => {
                let why = format!("{} belongs to user {}, and this is root", path.display(), meta.uid());
                return Err(Homeless { why, remedy: owner::remedy(meta.uid()) });
            }
            Ok(_) if access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok() => return Ok(()),
            Ok(_) => return Err(no_home(format!("{} cannot be written", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => {
                return Err(no_home(format!(
                    "{} cannot be entered",
                    path.parent().unwrap_or(path).display()
                )));
            }
        }
    }
    Err(no_home(format!("{} cannot be made", directory.display())))
}

fn no_home(why: String) -> Homeless {
    Homeless { why, remedy: "set HOME or XDG_STATE_HOME to a directory of yours" }
}
