//! `ksb unlock`

use super::sign_in::interactive;
use super::terminal::Keys;
use super::{cloud_args, vault};
use crate::api::{Status, UnlockRequest, VaultReport, VaultState};
use crate::cli::output::{errln, outln};
use crate::client::Client;
use crate::error::{Code, Error, Result};
use crate::model::Secret;

/// A slip of the finger is no reason to start the command again.
const TRIES: u32 = 3;

pub(super) async fn run() -> Result<()> {
    let client = cloud_args::client()?;
    let status: Status = client.get("/v1/status").await?.json()?;
    if status.vault.state == VaultState::Sealed || status.locked.is_some() {
        // Its keeper may give the key by now, without the user.
        match open(&client, None).await {
            Err(error) if error.code == Code::VaultSealed => ask(&client, error).await?,
            other => drop(other?),
        }
    }
    if status.locked.is_some() {
        outln!("Unlocked.");
    }
    let status: Status = client.get("/v1/status").await?.json()?;
    vault::show(&status.vault);
    Ok(())
}

/// Asks for the passphrase; `error` says what for.
pub(super) async fn ask(client: &Client, mut error: Error) -> Result<()> {
    if !interactive::may_prompt() {
        return Err(error);
    }
    for _ in 0..TRIES {
        let Some(passphrase) = passphrase(&error, "Passphrase").await else { return Err(error) };
        match open(client, Some(passphrase)).await {
            Err(wrong) if wrong.code == Code::VaultSealed => error = wrong,
            other => return other.map(drop),
        }
    }
    Err(error)
}

/// What the user types, if there is one and they type something.
async fn passphrase(why: &Error, question: &str) -> Option<Secret> {
    let mut keys = Keys::open()?;
    errln!("ksb: {why}");
    let typed = keys.line(question).await;
    (!typed.expose().is_empty()).then_some(typed)
}

async fn open(client: &Client, passphrase: Option<Secret>) -> Result<VaultReport> {
    client.post("/v1/unlock", &UnlockRequest { passphrase }).await?.json()
}
