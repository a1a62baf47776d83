//! Which machine this is.

use std::fs;

use sha2::{Digest, Sha256};

use crate::model::hex;

/// A name for this machine that is ours alone: machine-id(5) asks not to show the id itself. `None` where the system
/// has none, as in some containers.
pub fn id() -> Option<String> {
    let files = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
    let id = files.into_iter().find_map(|file| {
        let id = fs::read_to_string(file).ok()?.trim().to_owned();
        // "uninitialized" during the first boot.
        (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    })?;
    let digest = Sha256::digest(format!("keystone-broker {id}"));
    Some(hex(&digest[..8]))
}

/// The name of a file in a home that other machines may have, too.
pub fn file_name(stem: &str, extension: &str) -> String {
    format!("{stem}-{}{extension}", id().as_deref().unwrap_or(UNKNOWN))
}

/// Stands for the id of a machine that has none.
pub const UNKNOWN: &str = "nowhere";

/// What the machine calls itself.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Which boot of it this is.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
