//! `ksb status`

use serde_json::json;

use super::{lease, say, target, vault};
use crate::api::{Session, Status};
use crate::error::Result;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print JSON: {"running": bool} and, if it is, what GET /v1/status answers (docs/api.md)
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let client = target::client()?;
    // Looking must not start anything.
    if !client.is_running().await {
        if args.json {
            println!("{:#}", json!({"running": false, "sessions": [], "sign_ins": []}));
        } else {
            println!("No agent is running, so nobody is signed in. Sign in with: ksb login");
        }
        return Ok(());
    }
    let status: Status = client.get("/v1/status").await?.json()?;
    if args.json {
        let mut value = json!({"running": true});
        if let (Some(all), Ok(serde_json::Value::Object(fields))) =
            (value.as_object_mut(), serde_json::to_value(&status))
        {
            all.extend(fields);
        }
        println!("{value:#}");
        return Ok(());
    }
    if let Some(lock) = &status.locked {
        println!("Locked {}, {}. Unlock with: ksb unlock", lock.reason, say::since(lock.since));
    }
    for session in &status.sessions {
        show(session);
    }
    for sign_in in &status.sign_ins {
        let asks: Vec<_> = sign_in.asks.iter().map(|ask| ask.text.as_str()).collect();
        let what = if asks.is_empty() { sign_in.url.clone() } else { asks.join(", ") };
        println!("{}: a sign-in waits: {what}", sign_in.cloud);
    }
    if status.sessions.is_empty() && status.sign_ins.is_empty() && status.locked.is_none() {
        println!("Nobody is signed in. Sign in with: ksb login");
    }
    println!(
        "agent {} (process {}), {} at {}",
        status.version,
        status.pid,
        say::since(status.started_at),
        client.paths().socket.display()
    );
    vault::show(&status.vault);
    match &status.facade.problem {
        None => println!("a Keystone for tools without a plugin at {}: ksb exec --help", status.facade.url),
        Some(problem) => println!("no Keystone for tools without a plugin: {problem}"),
    }
    for each in &status.leases {
        lease::show(each);
    }
    for notice in &status.notices {
        println!("NOTE: {notice}");
    }
    Ok(())
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
        let left = say::span(session.expires_at.duration_since(say::now()));
        let cloud = session.clouds.first().map_or("", String::as_str);
        format!("ends in {left}; sign in again: ksb login {cloud}")
    } else {
        format!("until {}", say::until(session.expires_at))
    };
    println!("{}: {} by {by} {until}", session.clouds.join(", "), say::user(&session.user));
    println!("    {}", session.auth_url);
    if let Some(evidence) = &session.evidence {
        let how = [("acr", evidence.acr.clone()), ("amr", Some(evidence.amr.join(", ")))];
        let how = how
            .into_iter()
            .filter_map(|(name, said)| Some(format!("{name} {}", said.filter(|said| !said.is_empty())?)));
        let when = evidence.auth_time.map(|when| format!("proved {}", say::since(when)));
        let said: Vec<_> = when.into_iter().chain(how).collect();
        if !said.is_empty() {
            println!("    {}", said.join("; "));
        }
    }
    if let Some(account) = &session.account {
        println!("    account {account}");
    }
    if !session.tls_verified {
        println!("    the certificate is NOT checked (verify: false)");
    }
    for cached in &session.scopes {
        println!("    {}: token until {}", cached.scope, say::until(cached.expires_at));
    }
}
