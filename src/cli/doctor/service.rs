//! Whether the agent outlives the session that started it.

use std::fs;
use std::path::Path;

use super::{Helped, finding};
use crate::api::{Finding, Found};
use crate::clouds::Environment;

/// Whether systemd runs this machine (`sd_booted(3)`).
pub(super) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Linger: without it systemd ends what a user runs, and removes `/run/user/UID`, with their last session.
pub(super) fn check(env: &Environment) -> Vec<Finding> {
    const CHECK: &str = "linger";
    if !has_systemd() {
        return vec![finding(CHECK, "", Found::Skipped, "systemd does not run this machine")];
    }
    let Some(name) = login_name(env) else {
        return vec![finding(CHECK, "", Found::Unknown, "the user has no name here")];
    };
    vec![if Path::new("/var/lib/systemd/linger").join(&name).exists() {
        finding(CHECK, "", Found::Ok, "on: the agent outlives your last session")
    } else if env.get("SSH_CONNECTION").is_some() {
        finding(
            CHECK,
            "",
            Found::Warn,
            "off: when your last SSH session ends, so does the agent, also for what runs on in tmux",
        )
        .remedy("loginctl enable-linger")
    } else {
        finding(CHECK, "", Found::Ok, "off: the agent ends when you log out")
    }]
}

/// By uid: `USER` may be anything.
fn login_name(env: &Environment) -> Option<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let listed = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    // Those of a directory service are not listed.
    listed.or_else(|| env.get("USER").map(str::to_owned)).filter(|name| !name.contains('/'))
}
