//! `ksb logout`

use super::{lease, say, target};
use crate::api::{LoggedOut, LogoutReply, LogoutRequest};
use crate::error::Result;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cloud: target::CloudArgs,
    /// Every session of every cloud
    #[arg(long, conflicts_with = "cloud")]
    all: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let cloud = if args.all {
        None
    } else {
        Some(target::resolve(&args.cloud, &target::ScopeArgs::default())?.cloud)
    };
    let client = target::client()?;
    let label = cloud.as_ref().map(|cloud| cloud.label().to_owned());
    let reply = if client.is_running().await {
        client.post("/v1/logout", &LogoutRequest { cloud }).await?.json()?
    } else {
        LogoutReply::default()
    };
    if reply.sessions.is_empty() {
        println!("{}nobody was signed in", label.map_or(String::new(), |label| format!("{label}: ")));
    }
    show(&reply);
    Ok(())
}

/// What has ended.
pub(super) fn show(LogoutReply { sessions, leases }: &LogoutReply) {
    for session in sessions {
        show_session(session);
    }
    for reply in leases {
        lease::ended(reply);
    }
}

fn show_session(session: &LoggedOut) {
    let label = &session.cloud;
    println!("{label}: {} is signed out; {} token(s) revoked", say::user(&session.user), session.revoked);
    for token in &session.not_revoked {
        println!("{}", say::not_revoked(label, token));
    }
    match &session.logout_url {
        Some(url) => println!("{label}: your browser is still signed in; end that too: {url}"),
        None => println!(
            "{label}: your browser is still signed in at the identity provider; sign out there, or close it"
        ),
    }
}
