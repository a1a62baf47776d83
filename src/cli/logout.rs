//! `ksb logout`

use std::collections::BTreeSet;

use super::{Done, cloud_args, lease, say};
use crate::api::{LoggedOut, LogoutReply, LogoutRequest, NotRevoked};
use crate::cli::output::{errln, outln};
use crate::error::Result;
use crate::model::Cloud;
use crate::vault;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cloud: cloud_args::CloudArgs,
    /// Every session of every cloud
    #[arg(long, conflicts_with_all = ["cloud", "os_cloud"])]
    all: bool,
}

pub(super) async fn run(args: Args) -> Result<Done> {
    let cloud = if args.all { None } else { Some(cloud_args::resolve_unscoped(&args.cloud)?.cloud) };
    let client = cloud_args::client()?;
    let label = cloud.as_ref().map(|cloud| cloud.label().to_owned());
    let argument = cloud.as_ref().map_or("--all", Cloud::argument).to_owned();
    // What was signed in by an agent that is gone lies in the vault, and the next agent has it from there.
    let reply = if vault::is_there(&client.paths().state) || client.is_running().await {
        client.post("/v1/logout", &LogoutRequest { cloud }).await?.json()?
    } else {
        LogoutReply::default()
    };
    if reply.sessions.is_empty() && reply.leases.is_empty() && reply.incomplete.is_none() {
        outln!("{}nobody was signed in", label.map_or(String::new(), |label| format!("{label}: ")));
    }
    show(&reply);
    Ok(if warn(&reply, &format!("ksb logout {argument}")) { Done::Failed } else { Done::Ok })
}

/// What has ended.
pub(super) fn show(LogoutReply { sessions, leases, .. }: &LogoutReply) {
    for session in sessions {
        show_session(session);
    }
    for reply in leases {
        lease::ended(reply);
    }
}

/// Says what is still good, or may be; whether anything is.
pub(super) fn warn(reply: &LogoutReply, again: &str) -> bool {
    let (refused, tried): (Vec<_>, Vec<_>) = not_revoked(reply).partition(|left| left.is_final);
    if !tried.is_empty() {
        let ends: Option<BTreeSet<_>> = tried.iter().map(|left| left.expires_at).collect();
        let until = match ends.as_ref().and_then(BTreeSet::last) {
            Some(end) => format!("until {}, when the last of it has expired", say::until(*end)),
            None => "until it is".to_owned(),
        };
        errln!("ksb: {} not revoked yet; the agent tries again {until}. Try: {again}", tried.len());
    }
    if !refused.is_empty() {
        errln!("ksb: {} cannot be revoked by ksb; it is forgotten here", refused.len());
    }
    if let Some(incomplete) = &reply.incomplete {
        errln!("ksb: {}", say::incomplete(incomplete));
    }
    !tried.is_empty() || !refused.is_empty() || reply.incomplete.is_some()
}

fn not_revoked(reply: &LogoutReply) -> impl Iterator<Item = &NotRevoked> {
    let sessions = reply.sessions.iter().flat_map(|session| &session.not_revoked);
    sessions.chain(reply.leases.iter().flat_map(|lease| &lease.not_revoked))
}

fn show_session(session: &LoggedOut) {
    let label = &session.cloud;
    outln!("{label}: {} is signed out; {} token(s) revoked", say::user(&session.user), session.revoked);
    for token in &session.not_revoked {
        outln!("{}", say::not_revoked(label, token));
    }
    match &session.logout_url {
        Some(url) => outln!("{label}: your browser is still signed in; end that too: {url}"),
        None => outln!(
            "{label}: your browser is still signed in at the identity provider; sign out there, or close it"
        ),
    }
}
