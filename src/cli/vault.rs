//! `ksb vault`

use clap::ValueEnum;

use super::cloud_args;
use super::terminal::Keys;
use crate::api::{KeyKind, Status, VaultKeyRequest, VaultReport, VaultState};
use crate::cli::output::outln;
use crate::error::{Code, Error, Result};
use crate::model::Secret;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Seal it anew, and let this one keep the key from now on
    #[arg(long, value_enum)]
    key: Option<Keeper>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keeper {
    /// The desktop's keyring
    Keyring,
    /// The kernel, until the reboot
    Kernel,
    /// You: it is asked for on this terminal
    Passphrase,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let client = cloud_args::client()?;
    let report = match args.key {
        None => client.get("/v1/status").await?.json::<Status>()?.vault,
        Some(keeper) => {
            let (key, passphrase) = match keeper {
                Keeper::Keyring => (KeyKind::Keyring, None),
                Keeper::Kernel => (KeyKind::Kernel, None),
                Keeper::Passphrase => (KeyKind::Passphrase, Some(new_passphrase().await?)),
            };
            let request = VaultKeyRequest { key, passphrase };
            client.post("/v1/vault/key", &request).await?.json()?
        }
    };
    show(&report);
    Ok(())
}

/// Typed twice: nobody can read it back.
async fn new_passphrase() -> Result<Secret> {
    let bad = |why: &str| Error::new(Code::InvalidRequest, why).remedy("ksb vault --key passphrase");
    let mut keys = Keys::open().ok_or_else(|| bad("no terminal to ask for a passphrase on"))?;
    let first = keys.line("New passphrase").await;
    if first.expose().is_empty() {
        return Err(bad("nothing was typed; nothing is changed"));
    }
    if keys.line("Again").await != first {
        return Err(bad("the passphrases do not match; nothing is changed"));
    }
    Ok(first)
}

/// Where sign-ins are kept, in sentences.
pub(super) fn show(vault: &VaultReport) {
    let because = vault.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    let file = &vault.file;
    match (vault.state, vault.key) {
        (VaultState::New, _) => {
            outln!("vault: the first sign-in makes {file}{because}");
        }
        (VaultState::Open, key) => {
            let keeper = match key {
                Some(KeyKind::Keyring) => "your desktop's keyring",
                Some(KeyKind::Kernel) => "the kernel until the reboot",
                Some(KeyKind::Passphrase) | None => "your passphrase",
            };
            outln!("vault: {file}, sealed; its key is kept by {keeper}{because}");
        }
        (VaultState::Sealed, _) => {
            outln!("vault: {file} is closed: {}", vault.reason.as_deref().unwrap_or("no key"));
        }
        (VaultState::Memory, _) => {
            outln!("vault: none, a restart of the agent forgets every sign-in{because}");
        }
    }
    if let Some(problem) = &vault.problem {
        outln!("    NOT up to date: {problem}; what is newer is kept in memory");
    }
    if let Some(remedy) = &vault.remedy {
        outln!("    try: {remedy}");
    }
}
