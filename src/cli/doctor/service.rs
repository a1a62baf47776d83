//! Whether the agent runs as a service, and whether it outlives the session that started it.

use super::{Helped, finding};
use crate::api::{Finding, Found};
use crate::cli::service::{OUTDATED, is_up_to_date};
use crate::platform::browser::ssh_connection;
use crate::platform::paths::Paths;
use crate::platform::systemd::{self, SOCKET};

pub(super) fn check(paths: &Paths) -> Vec<Finding> {
    vec![service(paths), linger()]
}

fn service(paths: &Paths) -> Finding {
    let said = |found, detail: &str| finding("service", "", found, detail);
    let (units, autostart) = systemd::places().unwrap_or_default();
    if autostart.exists() {
        return said(Found::Ok, "your desktop starts the agent at the login");
    }
    if !units.join(SOCKET).exists() {
        return said(Found::Ok, "not installed; the first command that needs the agent starts it");
    }
    if !systemd::is_there() {
        let detail = "installed, and no systemd of yours answers: it does not run as a service here";
        return said(Found::Warn, detail).remedy("log in anew; or: ksb service uninstall");
    }
    // What is wrong with config.toml is said where that is looked at.
    if is_up_to_date(&units, &paths.config).is_ok_and(|it_is| !it_is) {
        return said(Found::Warn, OUTDATED).remedy("ksb service install");
    }
    let active = systemd::systemctl(&["is-active", "--quiet", SOCKET]);
    if active.is_ok_and(|output| output.status.success()) {
        return said(Found::Ok, "installed; systemd starts the agent whenever a tool wants it");
    }
    said(Found::Fail, "installed, and its socket is not there")
        .remedy(format!("systemctl --user restart {SOCKET}"))
}

/// Without it systemd ends what a user runs, and removes `/run/user/UID`, with their last session.
fn linger() -> Finding {
    let said = |found, detail: &str| finding("linger", "", found, detail);
    match systemd::lingers() {
        None => said(Found::Skipped, "systemd does not run this machine"),
        Some(true) => said(Found::Ok, "on: the agent outlives your last session"),
        Some(false) if ssh_connection().is_none() => said(Found::Ok, "off: the agent ends when you log out"),
        Some(false) => {
            let detail =
                "off: when your last SSH session ends, so does the agent, also for what runs on in tmux";
            said(Found::Warn, detail).remedy("loginctl enable-linger")
        }
    }
}
