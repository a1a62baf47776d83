//! Where the user's browser is. `plugin-shim/keystoneauth_broker/environment.py` has the same rules, and
//! `tests/browser-locations.json` is the table that both are tested by.

use std::env;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::peer_program;

/// Where the browser is, as seen from the terminal of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrowserLocation {
    /// On this machine.
    Here,
    /// At the other end of an SSH session.
    BeyondSsh,
    /// On the machine of an editor, which opens addresses there and forwards ports (VS Code, devcontainers).
    BeyondEditor,
    /// It shows this terminal (JupyterHub, code-server, ttyd): this machine's ports are out of its reach.
    WebTerminal,
    /// On Windows, around this Linux.
    Windows,
    /// Not known.
    Nowhere,
}

/// Variables that only a terminal in a browser has.
const OF_WEB_TERMINALS: [&str; 3] = ["JUPYTERHUB_USER", "VSCODE_PROXY_URI", "GOOGLE_CLOUD_SHELL"];
/// Variables of Jupyter, which may also run on the user's own desktop.
const OF_JUPYTER: [&str; 2] = ["JUPYTER_SERVER_URL", "JPY_PARENT_PID"];
/// Programs that show a terminal in a browser, by the first letters of their names.
const WEB_TERMINALS: [&str; 4] = ["ttyd", "gotty", "wetty", "jupyter"];
/// Programs that serve remote logins. `sudo` and `su` may keep nothing of the session but these parents.
const SSH_SERVERS: [&str; 5] = ["sshd", "sshd-session", "sshd-auth", "dropbear", "mosh-server"];
/// Variables that tmux knows better than a program that was started before its user attached from elsewhere.
const OF_TMUX: [&str; 3] = ["SSH_CONNECTION", "DISPLAY", "WAYLAND_DISPLAY"];

impl BrowserLocation {
    /// For this process.
    pub fn of_this_process() -> Self {
        Self::of_process(std::process::id())
    }

    /// For a process with this environment, found out once: from then on it is the location of this one, too.
    pub fn of_process(pid: u32) -> Self {
        static LOCATION: OnceLock<BrowserLocation> = OnceLock::new();
        *LOCATION.get_or_init(|| {
            let parents = peer_program::names_of_parents(pid);
            Self::find(|name| env::var(name).ok(), &parents, &tmux_environment())
        })
    }

    /// From the environment, the names of the parent processes, and what `tmux show-environment` printed.
    pub fn find(variable: impl Fn(&str) -> Option<String>, parents: &[String], tmux: &str) -> Self {
        let value = |name: &str| current(&variable, tmux, name);
        let is_set = |name: &&str| value(name).is_some();
        let has_parent = |is_one: &dyn Fn(&str) -> bool| parents.iter().any(|parent| is_one(parent));
        let opens = !is_set(&"KSB_NO_BROWSER");
        if OF_WEB_TERMINALS.iter().any(is_set) {
            Self::WebTerminal
        } else if let Some(browser) = value("BROWSER").filter(|_| opens) {
            if browser.contains("/helpers/browser") { Self::BeyondEditor } else { Self::Here }
        } else if is_set(&"SSH_CONNECTION") || has_parent(&|name| SSH_SERVERS.contains(&name)) {
            Self::BeyondSsh
        } else if opens && is_set(&"WSL_INTEROP") {
            Self::Windows
        } else if opens && (is_set(&"DISPLAY") || is_set(&"WAYLAND_DISPLAY")) {
            Self::Here
        } else if OF_JUPYTER.iter().any(is_set)
            || has_parent(&|name| WEB_TERMINALS.iter().any(|terminal| name.starts_with(terminal)))
        {
            Self::WebTerminal
        } else {
            Self::Nowhere
        }
    }

    /// Whether a program of this machine can open it.
    pub fn can_be_opened(self) -> bool {
        matches!(self, Self::Here | Self::BeyondEditor | Self::Windows)
    }

    /// Whether it reaches this machine's ports through an SSH tunnel at most.
    pub fn is_remote(self) -> bool {
        matches!(self, Self::BeyondSsh | Self::WebTerminal)
    }

    /// Advice to the user, for a sign-in whose page is on this machine (`is_local`) or anywhere.
    pub fn advice(self, is_local: bool) -> Option<&'static str> {
        match (self, is_local) {
            (Self::Here, _) | (Self::BeyondEditor | Self::Windows, false) => None,
            (Self::BeyondSsh | Self::Nowhere, false) => {
                Some("open the address in any browser, also on another device")
            }
            (Self::WebTerminal, false) => Some("open the address in another tab of your browser"),
            (Self::Nowhere, true) => {
                Some("no browser is known here; open the address in one on this computer")
            }
            (Self::BeyondSsh, true) => Some(
                "your browser is at the other end of SSH; sign in with `ksb login`, which shows \
                 the ssh command that leads here",
            ),
            (Self::BeyondEditor, true) => Some(
                "your editor opens the browser on your own computer; it must forward the ports of this sign-in to the \
                 same ports there, as its list of forwarded ports shows",
            ),
            (Self::WebTerminal, true) => Some(
                "this terminal is in a browser that does not reach this machine's ports; without ssh to this machine, \
                 use an entry with `sign_in: oidc_device`",
            ),
            (Self::Windows, true) => {
                Some("Windows opens the browser; it reaches this machine by WSL's localhost")
            }
        }
    }
}

/// A variable as it is now: tmux knows how its user attached, and says `NAME=value`, or `-NAME` where the client that is
/// attached has none (tmux(1), `update-environment`).
fn current(variable: impl Fn(&str) -> Option<String>, tmux: &str, name: &str) -> Option<String> {
    let told = tmux.lines().filter(|_| OF_TMUX.contains(&name)).find_map(|line| match line.split_once('=') {
        Some((set, value)) => (set == name).then(|| Some(value.to_owned())),
        None => (line.strip_prefix('-') == Some(name)).then_some(None),
    });
    told.unwrap_or_else(|| variable(name)).filter(|value| !value.is_empty())
}

/// The environment that tmux has of the client that is attached to this pane's session. Empty without tmux.
fn tmux_environment() -> String {
    if env::var_os("TMUX").is_none_or(|value| value.is_empty()) {
        return String::new();
    }
    let mut tmux = Command::new("tmux");
    let asked = tmux.arg("show-environment").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let asked = asked.ok().filter(|output| output.status.success());
    asked.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `SSH_CONNECTION` as it is now.
pub fn ssh_connection() -> Option<String> {
    current(|name| env::var(name).ok(), &tmux_environment(), "SSH_CONNECTION")
}
