//! Making a lease: what `ksb lease create`, `ksb env` and `ksb exec` have in common.

use jiff::SignedDuration;

use super::sign_in::{interactive, recover, wait};
use super::{Done, duration, say, token};
use crate::api::{Lease, LeaseReply, LeaseRequest, SignInReply};
use crate::cli::output::errln;
use crate::client::Client;
use crate::clouds::Resolved;
use crate::error::{Code, Error, Result};
use crate::model::Scope;

/// A sign-in that is done and yet gives no lease is tried again this often.
const ROUNDS: u32 = 3;

/// Of a lease for which no time was named.
pub(super) const LIFETIME: SignedDuration = SignedDuration::from_hours(12);

/// What a lease is kept to.
#[derive(clap::Args, Clone, Default)]
pub(super) struct Limits {
    /// Keep its holder to one project: Keystone itself refuses them the others, and new credentials
    #[arg(long)]
    confined: bool,
    /// Give its holder all that you may do there, where the cloud makes no credential that is confined
    #[arg(long)]
    whole_identity: bool,
    /// Let it go on for this long without you, such as 8h: after your session has ended and while the agent is locked;
    /// always confined
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(super) unattended: Option<SignedDuration>,
    /// Ask you, on the desktop, before a program gets a token by it
    #[arg(long, conflicts_with = "unattended")]
    confirm: bool,
}

impl Limits {
    /// A lease of this kind, for a cloud and its scope; it lives until it is revoked, or `--unattended` ends.
    pub(super) fn request(&self, resolved: &Resolved) -> LeaseRequest {
        LeaseRequest {
            cloud: resolved.cloud.clone(),
            scope: resolved.scope.clone(),
            name: None,
            ttl: self.unattended.map(seconds),
            for_caller: false,
            confined: self.confined || self.unattended.is_some(),
            whole_identity: self.whole_identity,
            unattended: self.unattended.is_some(),
            confirm: self.confirm,
            s3: false,
            prompt: interactive::may_prompt(),
            remote: interactive::is_remote(),
        }
    }
}

/// As the API counts.
pub(super) fn seconds(duration: SignedDuration) -> u64 {
    u64::try_from(duration.as_secs()).unwrap_or_default()
}

/// A lease with its secrets, and the cloud that it is for.
pub(super) struct Grant {
    pub(super) resolved: Resolved,
    pub(super) reply: LeaseReply,
    /// The scope's project, where that is known.
    pub(super) project_id: Option<String>,
}

/// Asks until there is a lease, signing in in between. With `by_id` the scope's project is found, too.
pub(super) async fn make(
    client: &Client,
    resolved: Resolved,
    mut request: LeaseRequest,
    by_id: bool,
) -> Result<Grant> {
    let reply = ask(client, &mut request).await?;
    let mut project_id = match &resolved.scope {
        Scope::Project(project) => project.id.clone().or_else(|| reply.lease.project_id.clone()),
        _ => None,
    };
    if by_id && project_id.is_none() && matches!(resolved.scope, Scope::Project(_)) {
        project_id = token::project_id(client, request.cloud, &resolved.scope).await?;
    }
    Ok(Grant { resolved, reply, project_id })
}

async fn ask(client: &Client, request: &mut LeaseRequest) -> Result<LeaseReply> {
    for _ in 0..ROUNDS {
        match client.post("/v1/leases", request).await {
            Ok(reply) if reply.status == 201 => return reply.json(),
            Ok(reply) => wait::until_done(client, reply.json::<SignInReply>()?.sign_in, false).await?,
            Err(error) => recover::ask(client, &mut request.cloud, error).await?,
        }
    }
    Err(Error::new(Code::Internal, "signed in, but no lease could be made").cloud(request.cloud.label()))
}

/// What the holder of a lease can do and until when, for the user who made it; whether that is as long as `asked`.
pub(super) fn describe(lease: &Lease, asked: Option<SignedDuration>) -> Done {
    let Lease { cloud, name, .. } = lease;
    errln!("ksb: {cloud}: lease {name} {}: {}", until(lease), holder(lease));
    notices(lease);
    let ends = lease.session_expires_at.or(lease.expires_at);
    let is_cut =
        |asked: SignedDuration| ends.is_some_and(|end| end.duration_since(say::now()) < asked - SLACK);
    if asked.is_some_and(is_cut) {
        errln!("ksb: {cloud}: that is sooner than asked");
        return Done::TooShort;
    }
    Done::Ok
}

/// Keystone is asked, and rounds, before a lease is shown.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// `until 12:43 (50 min), when your session ends; after a new sign-in until 23:43 (11 h 50 min)`
pub(super) fn until(lease: &Lease) -> String {
    let end = lease.expires_at.map_or_else(|| "it is revoked".to_owned(), say::until);
    match lease.session_expires_at {
        Some(session) => {
            format!("until {}, when your session ends; after a new sign-in until {end}", say::until(session))
        }
        None => format!("until {end}"),
    }
}

fn holder(lease: &Lease) -> String {
    if lease.confined {
        let not = "no application credentials, EC2 credentials or trusts";
        format!("its holder gets {} and nothing else, and can make {not}", lease.scope)
    } else {
        "its holder gets the whole identity: every project of yours there".to_owned()
    }
}

/// What the user should know of a lease besides.
pub(super) fn notices(lease: &Lease) {
    for notice in &lease.notices {
        errln!("ksb: {}: {notice}", lease.cloud);
    }
}
