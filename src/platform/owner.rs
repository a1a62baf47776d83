//! Remedies for files and processes of another user: nothing of theirs is taken, changed or ended.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The remedy for a file of `owner`, who is not this user.
pub fn remedy(owner: u32) -> &'static str {
    if rustix::process::geteuid().is_root() && owner != 0 {
        "run this without sudo, or with HOME, XDG_* and KSB_SOCK of root's own"
    } else {
        "set HOME, XDG_RUNTIME_DIR, XDG_STATE_HOME, XDG_CONFIG_HOME or KSB_SOCK to what is yours"
    }
}

/// `remedy` for a file of ours; for another user's, what does not touch it.
pub fn remedy_at(path: &Path, remedy: String) -> String {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.uid() != rustix::process::geteuid().as_raw() => self::remedy(meta.uid()).to_owned(),
        _ => remedy,
    }
}
