//! Whether a person started this process, so that a browser may be opened, and whether one can be seen.

use std::env;
use std::fs::OpenOptions;

/// `KSB_PROMPT` wins; else a controlling terminal or a graphical session means a person.
pub(super) fn may_prompt() -> bool {
    match env::var("KSB_PROMPT").as_deref() {
        Ok("always") => true,
        Ok("never") => false,
        _ => has_terminal() || has_display(),
    }
}

/// Whether there is a browser to open: one that is configured or named, or a graphical session; `KSB_NO_BROWSER` says no.
pub(super) fn has_browser(configured: bool) -> bool {
    !is_set("KSB_NO_BROWSER") && (configured || is_set("BROWSER") || has_display())
}

/// Whether the person's browser is on another machine, at the other end of an SSH session. `BROWSER` says that one is here.
pub(super) fn is_remote() -> bool {
    is_set("SSH_CONNECTION") && (is_set("KSB_NO_BROWSER") || !is_set("BROWSER"))
}

/// Whether there is a terminal, also if our output goes elsewhere.
pub(super) fn has_terminal() -> bool {
    // Opening it fails with ENXIO for a process without a controlling terminal, such as cron's.
    OpenOptions::new().read(true).write(true).open("/dev/tty").is_ok()
}

fn has_display() -> bool {
    is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}
