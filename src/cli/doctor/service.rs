//! Whether the agent runs as a service, and whether it outlives the session that started it.

use std::fs;

use super::{Helped, finding};
use crate::api::{Finding, Found};
use crate::clouds::Environment;
use crate::platform::own;
use crate::platform::systemd::{self, SERVICE, SOCKET};

pub(super) fn check(env: &Environment) -> Vec<Finding> {
    vec![service(), linger(env)]
}

fn service() -> Finding {
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
    let text = fs::read_to_string(units.join(SERVICE)).unwrap_or_default();
    let [(_, expected), _] = systemd::units(&own::path(), 0);
    if text != expected {
        let detail = "it starts another program than this one, or by other rules";
        return said(Found::Warn, detail).remedy("ksb service install");
    }
    let active = systemd::systemctl(&["is-active", "--quiet", SOCKET]);
    if active.is_ok_and(|output| output.status.success()) {
        return said(Found::Ok, "installed; systemd starts the agent whenever a tool wants it");
    }
    said(Found::Fail, "installed, and its socket is not there")
        .remedy(format!("systemctl --user restart {SOCKET}"))
}

/// Without it systemd ends what a user runs, and removes `/run/user/UID`, with their last session.
fn linger(env: &Environment) -> Finding {
    let said = |found, detail: &str| finding("linger", "", found, detail);
    match systemd::lingers() {
        None => said(Found::Skipped, "systemd does not run this machine"),
        Some(true) => said(Found::Ok, "on: the agent outlives your last session"),
        Some(false) if env.get("SSH_CONNECTION").is_none() => {
            said(Found::Ok, "off: the agent ends when you log out")
        }
        Some(false) => {
            let detail =
                "off: when your last SSH session ends, so does the agent, also for what runs on in tmux";
            said(Found::Warn, detail).remedy("loginctl enable-linger")
        }
    }
}
