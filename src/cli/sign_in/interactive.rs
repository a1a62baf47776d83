//! Whether a user started this process, so that a browser may be opened, and whether one can be seen.

use std::env;

use crate::cli::terminal;
use crate::platform::browser::BrowserLocation;

/// `KSB_PROMPT` wins; else a controlling terminal or a graphical session means a user.
pub(in crate::cli) fn may_prompt() -> bool {
    match env::var("KSB_PROMPT").as_deref() {
        Ok("always") => true,
        Ok("never") => false,
        _ => has_terminal() || has_display(),
    }
}

/// Where the user's browser is. One that is configured is here; `KSB_NO_BROWSER` says that none may be opened.
pub(in crate::cli) fn browser_location(configured: bool) -> BrowserLocation {
    if configured && !is_set("KSB_NO_BROWSER") {
        return BrowserLocation::Here;
    }
    BrowserLocation::of_this_process()
}

/// Whether a browser reaches a sign-in of this machine through an SSH tunnel at most.
pub(in crate::cli) fn is_remote() -> bool {
    BrowserLocation::of_this_process().is_remote()
}

/// Whether there is a terminal, also if our output goes elsewhere.
pub(in crate::cli) fn has_terminal() -> bool {
    terminal::controlling().is_some()
}

fn has_display() -> bool {
    is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}
