//! Remedies for files and processes of another user: nothing of theirs is taken, changed or ended.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The remedy for root in another user's home.
pub const WITHOUT_SUDO: &str = "run this without sudo, or with HOME, XDG_* and KSB_SOCK of root's own";

/// The remedy for a file of `owner`, who is not this user.
pub fn remedy(owner: u32) -> &'static str {
    if rustix::process::geteuid().is_root() && owner != 0 {
        WITHOUT_SUDO
    } else {
        "set HOME, XDG_RUNTIME_DIR, XDG_STATE_HOME, XDG_CONFIG_HOME or KSB_SOCK to what is yours"
    }
}

/// Whether what root makes there would be in another user's directory, and not theirs to change.
pub fn is_of_another_for_root(directory: &Path) -> bool {
    let nearest = directory.ancestors().find_map(|path| fs::metadata(path).ok());
    rustix::process::geteuid().is_root() && nearest.is_some_and(|meta| meta.uid() != 0)
}

/// `remedy` for a file of ours; for another user's, what does not touch it.
pub fn remedy_at(path: &Path, remedy: String) -> String {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.uid() != rustix::process::geteuid().as_raw() => self::remedy(meta.uid()).to_owned(),
        _ => remedy,
    }
}
