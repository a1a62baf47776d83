//! `ksb service`: the agent as a service of the user's.

use std::fs;
use std::path::Path;

use clap::Subcommand;

use super::{cloud_args, stop};
use crate::agent;
use crate::api::Status;
use crate::cli::output::outln;
use crate::client::Client;
use crate::config::Config;
use crate::error::{Code, Error, Result, reason};
use crate::platform::systemd::{self, SERVICE, SOCKET};
use crate::platform::{current_exe, files};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start the agent whenever a tool wants it: by systemd, else at the desktop's login
    Install,
    /// Undo that
    Uninstall,
    /// Show whether it is installed, and whether it outlives your logout
    Status,
}

pub(super) async fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Install => install().await,
        Action::Uninstall => uninstall().await,
        Action::Status => status(),
    }
}

async fn install() -> Result<()> {
    let client = cloud_args::client()?;
    let program = current_exe::path();
    let (units, autostart) = places()?;
    if !systemd::is_there() {
        write(&autostart, &systemd::autostart(&program))?;
        outln!(
            "No systemd of yours answers. Your desktop starts the agent at the next login: {}",
            autostart.display()
        );
        return Ok(());
    }
    let port = port(&client.paths().config)?;
    let runs = client.is_running().await;
    if runs {
        check_that_nobody_is_forgotten(&client).await?;
    }
    for (name, text) in systemd::units(&program, port) {
        write(&units.join(name), &text)?;
        outln!("{}", units.join(name).display());
    }
    // Of before there was a systemd: one way to start it is enough.
    remove(&autostart)?;
    // One that runs already has the socket's place; its sessions wait in the vault for the next one.
    if runs && !is_active(SERVICE) {
        client.post_and_part("/v1/stop", &serde_json::json!({})).await?;
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--quiet", SOCKET])?;
    systemctl(&["restart", SOCKET])?;
    outln!("systemd starts the agent whenever a tool wants it.");
    explain_linger();
    Ok(())
}

async fn uninstall() -> Result<()> {
    let (units, autostart) = places()?;
    let own = [units.join(SOCKET), units.join(SERVICE), autostart];
    if !own.iter().any(|file| file.exists()) {
        outln!("It is not installed.");
        return Ok(());
    }
    if systemd::is_there() {
        let client = cloud_args::client()?;
        if is_active(SERVICE) && client.is_running().await {
            check_that_nobody_is_forgotten(&client).await?;
        }
        systemctl(&["disable", "--now", "--quiet", SOCKET])?;
        systemctl(&["stop", SERVICE])?;
    }
    for file in &own {
        remove(file)?;
    }
    if systemd::is_there() {
        systemctl(&["daemon-reload"])?;
    }
    outln!("From now on the first command that needs the agent starts it.");
    Ok(())
}

/// The unit's end is the agent's, and Requires= has the socket's restart end it, too.
async fn check_that_nobody_is_forgotten(client: &Client) -> Result<()> {
    let status: Status = client.get("/v1/status").await?.json()?;
    if !stop::forgets(&status) {
        return Ok(());
    }
    let sessions = status.sessions.len();
    let why = format!("the agent would end, and {sessions} session(s) are in its memory only");
    Err(Error::new(Code::VaultUnusable, why).remedy(
        "ksb logout --all; or ksb agent stop, which forgets them: their tokens live until they expire",
    ))
}

/// Whether something starts the agent when a tool wants it, or at the login.
pub(super) fn is_installed() -> bool {
    places().is_ok_and(|(units, autostart)| units.join(SOCKET).exists() || autostart.exists())
}

fn status() -> Result<()> {
    let (units, autostart) = places().unwrap_or_default();
    if autostart.exists() {
        outln!("installed: your desktop starts the agent at the login ({})", autostart.display());
        return Ok(());
    }
    if !units.join(SOCKET).exists() {
        outln!(
            "not installed: the first command that needs the agent starts it. Install with: ksb service install"
        );
        return Ok(());
    }
    if !systemd::is_there() {
        outln!("installed, but no systemd of yours answers: it does not run as a service here");
        return Ok(());
    }
    outln!("installed: {} is {}, {SERVICE} is {}", SOCKET, state(SOCKET), state(SERVICE));
    if !is_up_to_date(&units, &cloud_args::client()?.paths().config)? {
        outln!("    {OUTDATED}. To mend that: ksb service install");
    }
    explain_linger();
    Ok(())
}

/// What it is if it is not up to date.
pub(super) const OUTDATED: &str =
    "it starts another program than this one, has another port for the facade, or other rules";

/// Whether the units are what would be installed now.
pub(super) fn is_up_to_date(units: &Path, config: &Path) -> Result<bool> {
    let lies_there = |(name, text)| fs::read_to_string(units.join(name)).is_ok_and(|there| there == text);
    Ok(systemd::units(&current_exe::path(), port(config)?).into_iter().all(lies_there))
}

/// The facade's, which systemd holds: the agent takes what it is given, whatever its settings say.
fn port(config: &Path) -> Result<u16> {
    Ok(Config::load(config)?.facade_port.unwrap_or_else(agent::own_port))
}

fn explain_linger() {
    if systemd::lingers() == Some(false) {
        outln!(
            "It ends with your last session here, also for what runs on in tmux. To keep it: loginctl enable-linger"
        );
    }
}

fn state(unit: &str) -> String {
    let state = systemd::systemctl(&["is-active", unit]).map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&state).trim().to_owned()
}

fn is_active(unit: &str) -> bool {
    state(unit) == "active"
}

fn places() -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    systemd::places()
        .ok_or_else(|| Error::new(Code::Io, "no home directory: HOME is not set").remedy("set HOME"))
}

fn write(file: &Path, text: &str) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| files::replace(file, text.as_bytes()))
        .map_err(|error| failed(file, &error))
}

/// Removes what is there.
fn remove(file: &Path) -> Result<()> {
    if file.exists() {
        fs::remove_file(file).map_err(|error| failed(file, &error))?;
        outln!("removed {}", file.display());
    }
    Ok(())
}

fn failed(file: &Path, error: &std::io::Error) -> Error {
    Error::new(Code::Io, format!("{}: {}", file.display(), reason(error)))
}

fn systemctl(args: &[&str]) -> Result<()> {
    let failed = |why: String| {
        Error::new(Code::Io, format!("systemctl --user {}: {why}", args.join(" ")))
            .remedy(format!("systemctl --user status {SOCKET}"))
    };
    let output = systemd::systemctl(args).map_err(|error| failed(reason(&error)))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
