//! Sign-ins that a running command waits for: shown between its own lines, without a word to its terminal otherwise.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::api::{SignIn, SignInReply, SignInState};
use crate::cli::say;
use crate::cli::wait::{self, Screen};
use crate::client::Client;
use crate::error::Result;

/// The facade holds a request no longer.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// An agent that is asked to wait and answers nothing before this has failed.
const AT_ONCE: Duration = Duration::from_secs(1);
/// One failure is an agent that ended: the next question starts another.
const FAILURES: u32 = 2;

/// Shows whatever sign-in `tool` waits for, until there is no agent to ask.
pub(super) async fn sign_ins(client: &Client, tool: &str) {
    let mut failures = 0;
    while failures < FAILURES {
        let asked = Instant::now();
        let shown = next(client, tool).await.unwrap_or(false);
        failures = if shown || asked.elapsed() > AT_ONCE { 0 } else { failures + 1 };
    }
}

/// Whether there was one, within what the agent waits.
async fn next(client: &Client, tool: &str) -> Result<bool> {
    let reply = client.get("/v1/leases/sign-in?wait=60").await?;
    if reply.status != 200 {
        return Ok(false);
    }
    follow(client, reply.json::<SignInReply>()?.sign_in, tool).await?;
    Ok(true)
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
