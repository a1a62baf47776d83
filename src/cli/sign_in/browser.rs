//! Opening a URL: the configured command, a private window, or the system's browser.

use crate::error::reason;
use std::env;
use std::process::{Command, Stdio};

use crate::api::SignIn;

/// Opens the sign-in's URL; says in one sentence why it did not.
pub(in crate::cli) fn open(sign_in: &SignIn) -> Result<(), String> {
    if let Some(command) = &sign_in.browser {
        return run(command, &sign_in.url);
    }
    if sign_in.private_window {
        return open_private(&sign_in.url);
    }
    webbrowser::open(&sign_in.url).map_err(|error| format!("no browser could be opened: {}", reason(&error)))
}

fn open_private(url: &str) -> Result<(), String> {
    let browser = env::var("BROWSER").ok().filter(|name| !name.is_empty()).or_else(default_browser);
    let command = browser.as_deref().and_then(private_command);
    match command {
        Some(command) => run(&command, url),
        None => Err("open the address in a private window of your browser".into()),
    }
}

/// The desktop's default, as xdg-utils knows it: `firefox-esr.desktop`.
fn default_browser() -> Option<String> {
    let output =
        Command::new("xdg-settings").args(["get", "default-web-browser"]).stderr(Stdio::null()).output();
    let name = String::from_utf8(output.ok()?.stdout).ok()?;
    name.trim().strip_suffix(".desktop").map(str::to_owned)
}

/// The command that opens a private window, for the browsers that have a switch for it.
fn private_command(browser: &str) -> Option<String> {
    let name = browser.rsplit('/').next()?;
    let switch = if name.contains("firefox") || name.contains("librewolf") {
        "--private-window"
    } else if ["chrom", "brave", "vivaldi"].iter().any(|known| name.contains(known)) {
        "--incognito"
    } else if name.contains("edge") {
        "--inprivate"
    } else {
        return None;
    };
    Some(format!("{browser} {switch} {{url}}"))
}

/// Runs a command of the user's own configuration; `{url}` stands for the address, else it comes last.
fn run(command: &str, url: &str) -> Result<(), String> {
    let mut words = shlex::split(command)
        .ok_or_else(|| format!("the browser command has unbalanced quotes: {command}"))?;
    if !words.iter().any(|word| word.contains("{url}")) {
        words.push("{url}".into());
    }
    let mut words = words.into_iter().map(|word| word.replace("{url}", url));
    let program = words.next().unwrap_or_default();
    Command::new(&program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(|_| ())
        .map_err(|error| format!("{program}: {}", reason(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_windows_of_the_browsers_that_have_a_switch() {
        assert_eq!(private_command("firefox-esr").as_deref(), Some("firefox-esr --private-window {url}"));
        assert_eq!(
            private_command("/usr/bin/chromium").as_deref(),
            Some("/usr/bin/chromium --incognito {url}")
        );
        assert_eq!(private_command("lynx"), None);
    }
}
