//! Sign-ins that a running command waits for: shown between its own lines, without a word to its terminal otherwise.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::{SignIn, SignInReply, SignInState};
use crate::cli::sign_in::wait::{self, Screen};
use crate::cli::{say, terminal};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::platform::daemon;
use crate::platform::paths::named_socket;

/// The facade holds a request no longer.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// Between two questions that nobody answers; twice as long each time.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Starts the process that shows the sign-ins of the command that this process is about to become. It is not the command's
/// child, and has none of its pipes: a reader of those would wait for it.
pub(super) fn start(tool: &str) -> Result<()> {
    let process = std::process::id().to_string();
    let mut watcher = daemon::command(&["helper", "sign-ins", "--process", &process, "--tool", tool])
        .and_then(|mut starter| {
            starter.stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal_or_null());
            if let Some(socket) = named_socket() {
                starter.env("KSB_SOCK", socket);
            }
            starter.current_dir("/").spawn()
        })
        .map_err(|error| Error::io("the sign-ins cannot be watched", &error))?;
    watcher.wait().ok();
    Ok(())
}

fn terminal_or_null() -> Stdio {
    let stderr = std::io::stderr();
    let own = stderr.is_terminal().then(|| stderr.as_fd().try_clone_to_owned().ok()).flatten();
    own.or_else(|| terminal::controlling().map(OwnedFd::from)).map_or_else(Stdio::null, Stdio::from)
}

/// Shows each sign-in that `tool` waits for. `process` is the one that the lease ends with, if that is not this one. An
/// agent that ended is started again by the next question.
pub(super) async fn sign_ins(client: &Client, process: Option<u32>, tool: &str) {
    let mut pause = PAUSE;
    loop {
        pause = if next(client, process, tool).await.is_ok() {
            PAUSE
        } else {
            let _elapsed = tokio::time::timeout(pause, std::future::pending::<()>()).await;
            LONGEST_PAUSE.min(pause * 2)
        };
    }
}

/// The next one, if there is one within what the agent waits.
async fn next(client: &Client, process: Option<u32>, tool: &str) -> Result<()> {
    let process = process.map_or(String::new(), |pid| format!("&process={pid}"));
    let reply = client.get(&format!("/v1/leases/sign-in?wait=60{process}")).await?;
    if reply.status == 200 {
        follow(client, reply.json::<SignInReply>()?.sign_in, tool).await?;
    }
    Ok(())
}

async fn follow(client: &Client, mut sign_in: SignIn, tool: &str) -> Result<()> {
    let mut screen = Screen::new();
    let who = waits(tool, &sign_in, say::now());
    screen.announce(&sign_in, &who);
    if sign_in.url.is_empty() {
        let asks: Vec<_> = sign_in.asks.iter().map(|ask| ask.text.as_str()).collect();
        let label = &sign_in.cloud;
        // The terminal is the tool's.
        screen.line(&format!(
            "ksb: {label}: {} must be typed in another terminal: ksb login {label}{who}",
            asks.join(", ")
        ));
    }
    loop {
        screen.notices(&sign_in);
        match sign_in.state {
            SignInState::Done => {
                screen.line(&format!("ksb: {}: signed in; {tool} goes on", sign_in.cloud));
                return Ok(());
            }
            SignInState::Failed => {
                let error = wait::reason(&mut sign_in).cloud(&sign_in.cloud);
                screen.line(&say::failure(&error));
                return Ok(());
            }
            SignInState::Waiting if sign_in.opener => wait::open(client, &sign_in, &mut screen).await?,
            SignInState::Waiting | SignInState::Confirming | SignInState::Asking => {}
        }
        sign_in = wait::news(client, &sign_in).await?;
    }
}

/// ` (tofu waits, 4:58 left)`
fn waits(tool: &str, sign_in: &SignIn, now: Timestamp) -> String {
    let left = sign_in.deadline.duration_since(now).min(PATIENCE);
    format!(" ({tool} waits, {} left)", say::countdown(left))
}
