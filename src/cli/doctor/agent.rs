//! The agent: whether one runs, whether it is this version's, and what it says of its vault and facade.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Helped, failed, finding};
use crate::api::{Finding, Found, KeyKind, Status, VaultState};
use crate::cli::say;
use crate::client::{Client, is_older};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::platform::current_exe;
use crate::platform::paths::{Paths, lock_of};
use crate::vault::{self, Wish};

/// An agent that works answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
const OURS: &str = env!("CARGO_PKG_VERSION");
const CHECK: &str = "agent";
/// How the kernel marks a file that has no name any more.
const DELETED: &str = " (deleted)";

/// What the agent says of itself; none is started for it.
pub(super) async fn status(paths: &Paths) -> Result<Status> {
    let client = Client::of_the_one_that_runs(paths.clone());
    let asking = async { client.get("/v1/status").await?.json() };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
        let why = format!("it does not answer within {} s", PATIENCE.as_secs());
        Err(Error::new(Code::AgentUnavailable, why))
    })
}

/// Whether one runs, and which.
pub(super) async fn check(paths: &Paths) -> (Finding, Option<Status>) {
    let socket = match paths.reachable_socket() {
        Ok(socket) => socket,
        Err(error) => return (failed(CHECK, "", error), None),
    };
    let lock = lock_of(socket);
    let running = Client::of_the_one_that_runs(paths.clone()).is_running().await;
    if !running {
        let finding = match stuck(&lock).await {
            Some(Holder::Agent(pid)) => finding(
                CHECK,
                "",
                Found::Fail,
                format!("process {pid} holds {} and serves no socket", lock.display()),
            )
            .remedy(format!("if it stays so, end it: kill {pid}")),
            Some(Holder::Unknown) => finding(
                CHECK,
                "",
                Found::Fail,
                format!("{} is held, and not by an agent of yours on this machine", lock.display()),
            )
            .remedy("set KSB_SOCK to a socket in a private directory of this machine"),
            None if is_foreign(socket) => {
                finding(CHECK, "", Found::Fail, format!("{} belongs to another user", socket.display()))
                    .remedy("unset KSB_SOCK, or set it to a socket of your own")
            }
            None => finding(CHECK, "", Found::Ok, "none runs; it starts when it is needed"),
        };
        return (finding, None);
    }
    match status(paths).await {
        Ok(status) => (running_one(&status), Some(status)),
        Err(mut error) => {
            if let Some(Holder::Agent(pid)) = holder(&lock) {
                error.detail = format!("{} (process {pid})", error.detail);
                error.remedy = Some(format!("end it: kill -9 {pid}; the next command starts another"));
            }
            (failed(CHECK, "", error), None)
        }
    }
}

/// Whether a cloud's check can start an agent: none runs, and nothing is in the way.
pub(super) fn may_start(findings: &[Finding]) -> bool {
    !findings.iter().any(|finding| finding.check == CHECK && finding.finding == Found::Fail)
}

fn running_one(status: &Status) -> Finding {
    let which = format!("version {}, process {}", status.version, status.pid);
    let replace = "ksb agent stop; the next command starts the new one (what is in no vault is forgotten)";
    let was_at = status.program.as_ref().and_then(|program| program.strip_suffix(DELETED));
    if status.version != OURS {
        let detail = format!("{which}: this is ksb {OURS}");
        let hands_over =
            is_older(Some(&status.version)) && was_at.is_some_and(|path| Path::new(path).exists());
        let helps = if hands_over {
            "ksb status: it hands over to the new one, and nobody is signed out"
        } else {
            replace
        };
        return finding(CHECK, "", Found::Warn, detail).remedy(helps);
    }
    match was_at {
        Some(program) => {
            let detail = format!("{which}: its program was replaced or removed: {program}");
            finding(CHECK, "", Found::Warn, detail).remedy(replace)
        }
        None => finding(CHECK, "", Found::Ok, which),
    }
}

/// The process that holds an agent's lock.
enum Holder {
    /// An agent of this user on this machine, by its process id.
    Agent(u32),
    /// A process that must not be ended by its number alone: it may run on another machine.
    Unknown,
}

fn holder(lock: &Path) -> Option<Holder> {
    let file = File::options().read(true).write(true).open(lock).ok()?;
    if file.try_lock().is_ok() {
        return None;
    }
    Some(current_exe::agent_named_in(lock).map_or(Holder::Unknown, Holder::Agent))
}

/// The process that holds the lock where there is no socket, unless it lets go of it: one that ends needs a moment.
async fn stuck(lock: &Path) -> Option<Holder> {
    let holder = holder(lock)?;
    let file = File::options().read(true).write(true).open(lock).ok()?;
    let (free, wait) = oneshot::channel();
    // Left to itself where nobody lets go.
    thread::spawn(move || file.lock().map(|()| free.send(())));
    tokio::time::timeout(PATIENCE, wait).await.is_err().then_some(holder)
}

fn is_foreign(socket: &Path) -> bool {
    fs::metadata(socket).is_ok_and(|meta| meta.uid() != rustix::process::getuid().as_raw())
}

/// What a running agent says of its vault, of the facade and of what else its user should know.
pub(super) async fn within(status: Option<&Status>, paths: &Paths) -> Vec<Finding> {
    let looked = look(paths).await;
    let Some(status) = status else {
        let facade = finding("facade", "", Found::Skipped, "the agent knows, and none runs");
        return vec![vault_at_rest(looked), facade];
    };
    let mut findings: Vec<_> =
        status.notices.iter().map(|notice| finding(CHECK, "", Found::Warn, notice)).collect();
    match &status.locked {
        // Its vault is closed, as it should be.
        Some(lock) => {
            let detail = format!("locked {}: it gives no tokens", say::since(lock.since));
            findings.push(finding("lock", "", Found::Warn, detail).remedy("ksb unlock"));
        }
        None => findings.push(vault(status, looked)),
    }
    findings.push(facade(status));
    findings
}

/// At the file itself: what the agent says of its key is as old as the agent.
async fn look(paths: &Paths) -> Option<Result<KeyKind>> {
    match Config::load(&paths.config).ok()?.vault {
        Wish::Memory => None,
        _ => vault::look(&paths.state).await,
    }
}

fn keeper(key: Option<KeyKind>) -> &'static str {
    match key {
        Some(KeyKind::Keyring) => "the desktop's keyring",
        Some(KeyKind::Kernel) => "the kernel, until the reboot",
        Some(KeyKind::Passphrase) | None => "your passphrase",
    }
}

/// The vault that the next agent finds.
fn vault_at_rest(looked: Option<Result<KeyKind>>) -> Finding {
    match looked {
        None => finding("vault", "", Found::Skipped, "there is none, and no agent runs"),
        Some(Ok(key)) => {
            let detail = format!("no agent has it open; its key is kept by {}", keeper(Some(key)));
            finding("vault", "", Found::Ok, detail)
        }
        Some(Err(why)) => failed("vault", "", why),
    }
}

fn vault(status: &Status, looked: Option<Result<KeyKind>>) -> Finding {
    let vault = &status.vault;
    let because = vault.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    let mut remedy = vault.remedy.clone();
    let (found, mut detail) = match vault.state {
        VaultState::New if vault.reason.is_none() => (Found::Ok, "the first sign-in makes it".to_owned()),
        // There was one, and what was in it is lost.
        VaultState::New => {
            remedy = Some("ksb login".into());
            (Found::Warn, format!("the next sign-in makes a new one{because}"))
        }
        VaultState::Open => {
            let open = format!("open; its key is kept by {}{because}", keeper(vault.key));
            match looked {
                Some(Err(why)) => {
                    remedy = why.remedy;
                    (Found::Warn, format!("{open}; the next agent could not open it: {}", why.detail))
                }
                // There was another one, and what was in it is lost.
                _ if status.incomplete.is_some() => {
                    remedy = Some("ksb login".into());
                    (Found::Warn, open)
                }
                _ => (Found::Ok, open),
            }
        }
        VaultState::Sealed => {
            (Found::Fail, format!("closed: {}", vault.reason.as_deref().unwrap_or("its key cannot be had")))
        }
        // Chosen, or all that there is: the reason says which.
        VaultState::Memory if vault.remedy.is_none() => {
            (Found::Ok, format!("none: a restart of the agent forgets every sign-in{because}"))
        }
        VaultState::Memory => {
            (Found::Warn, format!("none: a restart of the agent forgets every sign-in{because}"))
        }
    };
    let found = match &vault.problem {
        Some(problem) => {
            detail = format!("{detail}; it is not up to date: {problem}");
            remedy = Some(
                "make room there, or have the directory written to again; what is newer is in memory".into(),
            );
            Found::Fail
        }
        None => found,
    };
    Finding { remedy, ..finding("vault", "", found, detail) }
}

fn facade(status: &Status) -> Finding {
    match &status.facade.problem {
        None => finding("facade", "", Found::Ok, &status.facade.url),
        Some(problem) => finding("facade", "", Found::Fail, problem).remedy(
            "set facade_port in config.toml, then: ksb agent stop (where it is a service: ksb service install)",
        ),
    }
}
