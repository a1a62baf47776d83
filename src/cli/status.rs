//! `ksb status`

use serde_json::json;

use super::{cloud_args, lease, say, vault as cli_vault};
use crate::agent;
use crate::api::{Incomplete, KeyKind, Session, Status, Unrevoked};
use crate::cli::output::{self, outln};
use crate::client::Client;
use crate::error::Result;
use crate::vault;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print JSON: {"running": bool} and, if it is, what GET /v1/status answers (docs/api.md)
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let client = cloud_args::client()?;
    if !client.is_running().await {
        match unopened(&client).await {
            Vaulted::Openable => {}
            Vaulted::Nothing => {
                show_none(args.json, None);
                return Ok(());
            }
            Vaulted::Closed(why) => {
                show_none(args.json, Some(&why));
                return Ok(());
            }
        }
    }
    let status: Status = client.get("/v1/status").await?.json()?;
    if args.json {
        let mut value = json!({"running": true});
        if let (Some(all), Ok(serde_json::Value::Object(fields))) =
            (value.as_object_mut(), serde_json::to_value(&status))
        {
            all.extend(fields);
        }
        output::json(&value);
        return Ok(());
    }
    if let Some(lock) = &status.locked {
        outln!("Locked {}, {}. Unlock with: ksb unlock", lock.reason, say::since(lock.since));
    }
    for session in &status.sessions {
        show(session);
    }
    for left in &status.unrevoked {
        show_unrevoked(left);
    }
    for sign_in in &status.sign_ins {
        let asks: Vec<_> = sign_in.asks.iter().map(|ask| ask.text.as_str()).collect();
        let what = if asks.is_empty() { sign_in.url.clone() } else { asks.join(", ") };
        let again = match sign_in.waiters {
            0 if sign_in.asks.is_empty() => format!("; to open it again: ksb login {}", sign_in.cloud),
            _ => String::new(),
        };
        outln!("{}: a sign-in waits: {what}{again}", sign_in.cloud);
    }
    match &status.incomplete {
        // That was said.
        Some(_) if status.locked.is_some() => {}
        Some(incomplete) => outln!("{}", say::incomplete(incomplete)),
        None if status.sessions.is_empty() && status.sign_ins.is_empty() => {
            outln!("Nobody is signed in. Sign in with: ksb login");
        }
        None => {}
    }
    outln!(
        "agent {} (process {}), {} at {}",
        status.version,
        status.pid,
        say::since(status.started_at),
        client.socket().display()
    );
    if status.locked.is_some() {
        outln!("vault: {}, sealed until: ksb unlock", status.vault.file);
    } else {
        cli_vault::show(&status.vault);
    }
    match &status.facade.problem {
        None => outln!("a Keystone for tools without a plugin at {}: ksb exec --help", status.facade.url),
        Some(problem) => outln!("no Keystone for tools without a plugin: {problem}"),
    }
    for each in &status.leases {
        lease::show(each);
    }
    for notice in &status.notices {
        outln!("NOTE: {notice}");
    }
    Ok(())
}

/// What lies on the disk where no agent runs.
enum Vaulted {
    Nothing,
    /// An agent that is started opens it without a question to anybody.
    Openable,
    Closed(Incomplete),
}

/// A shell's prompt may run this every few seconds: it must not have a keyring ask for its password.
async fn unopened(client: &Client) -> Vaulted {
    match vault::look(&client.paths().state).await {
        None => Vaulted::Nothing,
        Some(Ok(KeyKind::Keyring | KeyKind::Kernel)) => Vaulted::Openable,
        Some(Ok(KeyKind::Passphrase)) if agent::passphrase_file().is_some() => Vaulted::Openable,
        Some(Ok(KeyKind::Passphrase)) => Vaulted::Closed(Incomplete {
            reason: "the vault is sealed with your passphrase, and no agent runs".to_owned(),
            remedy: Some("ksb unlock".to_owned()),
            expires_at: None,
        }),
        Some(Err(why)) => Vaulted::Closed(why.into()),
    }
}

fn show_none(is_json: bool, incomplete: Option<&Incomplete>) {
    if is_json {
        let mut value = json!({"running": false, "sessions": [], "sign_ins": []});
        if let Some(incomplete) = incomplete {
            value["incomplete"] = json!(incomplete);
        }
        output::json(&value);
        return;
    }
    match incomplete {
        None => {
            outln!("No agent is running, and no vault is here: nobody is signed in. Sign in with: ksb login");
        }
        Some(incomplete) => outln!("No agent is running; {}", say::incomplete(incomplete)),
    }
}

fn show_unrevoked(left: &Unrevoked) {
    let whose = match (&left.user, &left.lease) {
        (Some(user), _) => format!("{} is signed out", say::user(user)),
        (None, lease) => format!("lease {} has ended", lease.as_deref().unwrap_or_default()),
    };
    outln!("{}: {whose}, but not everything is revoked yet; the agent tries again", left.cloud);
    for token in &left.not_revoked {
        outln!("    {}", say::not_revoked(&left.cloud, token));
    }
}

fn show(session: &Session) {
    let by = match (&session.identity_provider, session.protocol.as_str()) {
        (_, "") => "Keystone itself".to_owned(),
        (idp, protocol) => format!("{}/{protocol}", idp.as_deref().unwrap_or("its identity provider")),
    };
    let until = if session.kept_by_tab {
        format!("until {}; a browser tab keeps it signed in", say::until(session.expires_at))
    } else if session.renews && session.offline_access {
        "renews itself even when you are signed out at the identity provider (offline_access)".to_owned()
    } else if session.renews {
        "renews itself for as long as the identity provider allows".to_owned()
    } else if session.ends_soon {
        let left = session.expires_at.duration_since(say::now());
        let cloud = session.clouds.first().map_or("", String::as_str);
        let ends = if left.is_positive() {
            format!("ends in {}", say::span(left))
        } else {
            "has expired".to_owned()
        };
        format!("{ends}; sign in again: ksb login {cloud}")
    } else {
        format!("until {}", say::until(session.expires_at))
    };
    let end = session.ends_at.map_or(String::new(), |end| format!("; logged out at {}", say::until(end)));
    outln!("{}: {} by {by} {until}{end}", session.clouds.join(", "), say::user(&session.user));
    outln!("    {}", session.auth_url);
    if let Some(evidence) = &session.evidence {
        let how = [("acr", evidence.acr.clone()), ("amr", Some(evidence.amr.join(", ")))];
        let how = how
            .into_iter()
            .filter_map(|(name, said)| Some(format!("{name} {}", said.filter(|said| !said.is_empty())?)));
        let when = evidence.auth_time.map(|when| format!("proved {}", say::since(when)));
        let said: Vec<_> = when.into_iter().chain(how).collect();
        if !said.is_empty() {
            outln!("    {}", said.join("; "));
        }
    }
    if let Some(account) = &session.account {
        outln!("    account {account}");
    }
    if !session.tls_verified {
        outln!("    the certificate is NOT checked (verify: false)");
    }
    for cached in &session.scopes {
        outln!("    {}: token until {}", cached.scope, say::until(cached.expires_at));
    }
}
