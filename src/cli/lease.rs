//! `ksb lease`

use clap::Subcommand;
use jiff::SignedDuration;

use super::lease_env::{self, Shape};
use super::shell::{self, Format, Shell};
use super::{Done, cloud_args, duration, lease_request, say};
use crate::api::{Lease, LeasesReply, RevokeReply};
use crate::cli::output::{self, errln, outln};
use crate::client::Client;
use crate::clouds::Environment;
use crate::error::{Code, Error, Result};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a lease and print it: an application credential that is good at this machine's own Keystone only
    Create(Box<Create>),
    /// List the leases that live
    List {
        /// Print JSON: what GET /v1/leases answers (docs/api.md)
        #[arg(long)]
        json: bool,
    },
    /// End leases, and revoke the tokens they gave
    Revoke {
        /// A lease, by id or name
        #[arg(value_name = "ID|NAME", required_unless_present = "all", conflicts_with = "all")]
        leases: Vec<String>,
        /// Every lease
        #[arg(long)]
        all: bool,
    },
}

#[derive(clap::Args)]
struct Create {
    #[command(flatten)]
    cloud: cloud_args::CloudArgs,
    #[command(flatten)]
    scope: cloud_args::ScopeArgs,
    #[command(flatten)]
    limits: lease_request::Limits,
    /// How long it lives, such as 4h [default: 12h]; exit with 4 if it cannot be used for so long
    #[arg(long, value_name = "TIME", value_parser = duration::parse, conflicts_with = "unattended")]
    lifetime: Option<SignedDuration>,
    /// What to call it
    #[arg(long)]
    name: Option<String>,
    /// Print JSON: what POST /v1/leases answers (docs/api.md), in place of variables for eval
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<Done> {
    match args.command {
        Command::Create(args) => return create(*args).await,
        Command::List { json } => list(json).await?,
        Command::Revoke { leases, all } => revoke(leases, all).await?,
    }
    Ok(Done::Ok)
}

async fn create(args: Create) -> Result<Done> {
    let resolved = cloud_args::resolve(&args.cloud, &args.scope)?;
    let mut request = args.limits.request(&resolved);
    request.ttl = request
        .ttl
        .or_else(|| Some(lease_request::seconds(args.lifetime.unwrap_or(lease_request::LIFETIME))));
    request.name = args.name;
    let grant = lease_request::make(&cloud_args::client()?, resolved, request, false).await?;
    if args.json {
        output::json(&grant.reply);
    } else {
        let changes = lease_env::of_lease(&grant, Shape::Appcred, &Environment::of_this_process()?);
        output::exact(&shell::text(Format::Shell(Shell::Sh), &changes)?);
    }
    Ok(lease_request::describe(&grant.reply.lease, args.lifetime.or(args.limits.unattended)))
}

async fn list(json: bool) -> Result<()> {
    let reply: LeasesReply = cloud_args::client()?.get("/v1/leases").await?.json()?;
    if json {
        output::json(&reply);
        return Ok(());
    }
    for lease in &reply.leases {
        show(lease);
    }
    match &reply.incomplete {
        Some(incomplete) => outln!("{}", say::incomplete(incomplete)),
        None if reply.leases.is_empty() => outln!("There are no leases. Make one with: ksb lease create"),
        None => {}
    }
    match &reply.facade.problem {
        None => outln!("good at {}", reply.facade.url),
        Some(problem) => outln!("they are of NO use now: {problem}"),
    }
    Ok(())
}

/// A lease as people see it.
pub(super) fn show(lease: &Lease) {
    let holder = if lease.confined { "confined to it" } else { "the whole identity" };
    outln!("{}: {} for {}, {holder}, {}", lease.name, lease.cloud, lease.scope, lease_request::until(lease));
    let facts = [
        lease.process.map(|process| format!("ends with process {process}")),
        lease.unattended.then(|| "goes on without you".to_owned()),
        lease.confirm.then(|| "you are asked for each program".to_owned()),
        Some(lease.used_at.map_or("not used yet".to_owned(), |used| format!("used {}", say::since(used)))),
    ];
    outln!("    {}; {}", lease.id, facts.into_iter().flatten().collect::<Vec<_>>().join(", "));
    for notice in &lease.notices {
        outln!("    {notice}");
    }
}

/// One that cannot be ended does not keep the others alive.
async fn revoke(mut leases: Vec<String>, all: bool) -> Result<()> {
    let client = cloud_args::client()?;
    if all {
        let reply: LeasesReply = client.get("/v1/leases").await?.json()?;
        leases = reply.leases.into_iter().map(|lease| lease.id).collect();
        match &reply.incomplete {
            Some(incomplete) => {
                return Err(Error::new(Code::VaultUnavailable, say::incomplete(incomplete)));
            }
            None if leases.is_empty() => outln!("There are no leases."),
            None => {}
        }
    }
    let mut failed = None;
    for lease in leases {
        match end(&client, &lease).await {
            Ok(reply) => ended(&reply),
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    errln!("{}", say::failure(&earlier));
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Ends a lease, by id or name.
pub(super) async fn end(client: &Client, lease: &str) -> Result<RevokeReply> {
    client.delete(&path_of(lease)?).await?.json()
}

/// A name is a user's own: it may hold anything.
fn path_of(lease: &str) -> Result<String> {
    let mut url = url::Url::parse("ksb://agent/v1/leases")
        .map_err(|error| Error::new(Code::Internal, error.to_string()))?;
    if let (false, Ok(mut path)) = (["", ".", ".."].contains(&lease), url.path_segments_mut()) {
        path.push(lease);
    } else {
        return Err(
            Error::new(Code::UnknownLease, format!("no lease is called `{lease}`")).remedy("ksb lease list")
        );
    }
    Ok(url.path().to_owned())
}

/// Says what became of a lease.
pub(super) fn ended(reply: &RevokeReply) {
    let Lease { cloud, name, .. } = &reply.lease;
    let deleted = match reply.deleted {
        0 => String::new(),
        deleted => format!(", {deleted} credential(s) deleted"),
    };
    outln!("{cloud}: lease {name} has ended; {} token(s) revoked{deleted}", reply.revoked);
    for token in &reply.not_revoked {
        outln!("{}", say::not_revoked(cloud, token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_within_its_part_of_the_path() {
        assert_eq!(path_of("0123abcd").unwrap(), "/v1/leases/0123abcd");
        assert_eq!(path_of("a/../b ?c#d%").unwrap(), "/v1/leases/a%2F..%2Fb%20%3Fc%23d%25");
        for nothing in ["", ".", ".."] {
            assert!(path_of(nothing).is_err());
        }
    }
}
