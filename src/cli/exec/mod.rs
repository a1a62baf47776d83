//! `ksb exec`: a command whose clouds are leases at the facade, and end with it.

mod child;
mod ephemeral_agent;
mod secure_yaml_check;
mod sign_in_watch;
mod temp_config;
mod witness;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use self::ephemeral_agent::Inside;
use self::temp_config::Folder;
use super::lease_env::{self, Changes, Shape};
use super::lease_request::{self, Grant};
use super::sign_in::interactive;
use super::{Done, cloud_args, duration, lease, login, say, token};
use crate::api::LoginRequest;
use crate::cli::output::errln;
use crate::client::Client;
use crate::clouds::{
    self, CLOUDS_VARIABLE, Config, EXEC_VARIABLE, Environment, Outer, Resolved, SECURE_VARIABLE,
};
use crate::error::{Code, Error, Result};
use crate::model::Way;
use crate::platform::browser::BrowserLocation;
use crate::platform::files;
use crate::platform::paths::Paths;
use crate::platform::process::Process;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    clouds: cloud_args::CloudsArgs,
    #[command(flatten)]
    scope: cloud_args::ScopeArgs,
    /// Make sure first that your session lasts at least this long, such as 4h
    #[arg(long = "at-least", value_name = "TIME", value_parser = duration::parse)]
    lasting: Option<SignedDuration>,
    #[command(flatten)]
    limits: lease_request::Limits,
    /// How the command is to sign in
    #[arg(long = "as", value_enum, value_name = "SHAPE", default_value_t = Shape::Appcred)]
    shape: Shape,
    /// Give it keys for the cloud's S3 as well, which end with it
    #[arg(long)]
    s3: bool,
    /// Use an agent of this command alone, for CI: it signs in for this command only and leaves nothing behind
    #[arg(long)]
    ephemeral: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What the cloud that `OS_*` variables form is called in a clouds.yaml, where no entry may have the name.
const OF_VARIABLES: &str = "envvars";
/// The agent ends a lease with our process in any case.
const FAREWELL: Duration = Duration::from_secs(10);

pub(super) async fn run(args: Args) -> Result<Done> {
    let clouds = resolve(&args)?;
    if !args.ephemeral {
        return with_agent(&cloud_args::client()?, &args, clouds, Changes::default()).await;
    }
    let inside = Inside::start().await?;
    let outcome = with_agent(inside.client(), &args, clouds, inside.changes()).await;
    inside.end().await;
    outcome
}

/// The command that the process beside it shows sign-ins for.
#[derive(clap::Args)]
pub(super) struct SignInsArgs {
    /// Its process
    #[arg(long, value_name = "PID")]
    process: u32,
    /// Its name
    #[arg(long, value_name = "NAME")]
    tool: String,
}

/// Shows the sign-ins that a command waits for, until it ends.
pub(super) async fn show_sign_ins(args: SignInsArgs) -> Result<()> {
    let Some(process) = Process::of(args.process) else { return Ok(()) };
    let client = Client::new(Paths::from_env()?);
    BrowserLocation::of_process(process.pid);
    tokio::select! {
        () = process.ended() => {}
        () = sign_in_watch::sign_ins(&client, Some(process.pid), &args.tool) => {}
    }
    // The agent does that, too, unless it was started anew meanwhile and knows no such process.
    files::remove_left_by(&client.socket().with_file_name(""), process.pid);
    Ok(())
}

fn resolve(args: &Args) -> Result<Vec<Resolved>> {
    let wrong = |why: &str| Error::new(Code::InvalidRequest, why);
    let clouds: Vec<_> = args
        .clouds
        .each()
        .iter()
        .map(|cloud| cloud_args::resolve(cloud, &args.scope))
        .collect::<Result<_>>()?;
    let names: BTreeSet<_> = clouds.iter().map(|each| each.cloud.label()).collect();
    if names.len() < clouds.len() {
        return Err(wrong("a cloud is named twice").remedy("name each of them once"));
    }
    if args.s3 && clouds.len() > 1 {
        return Err(
            wrong("AWS_* variables have room for the keys of one cloud").remedy("name one cloud with --s3")
        );
    }
    if clouds.len() > 1 && names.contains(OF_VARIABLES) {
        return Err(wrong("the cloud of your OS_* variables has no name to be known by beside others")
            .remedy("give it one: OS_CLOUD_NAME=here"));
    }
    Ok(clouds)
}

async fn with_agent(
    client: &Client,
    args: &Args,
    clouds: Vec<Resolved>,
    mut changes: Changes,
) -> Result<Done> {
    for each in &clouds {
        sign_in_first(client, args, each).await?;
    }
    let mut grants = Vec::new();
    let outcome = with_leases(client, args, clouds, &mut grants, &mut changes).await;
    for grant in &grants {
        end(client, grant).await;
    }
    outcome
}

/// What the command would wait for in vain, because its terminal is its own or nobody can be asked later.
async fn sign_in_first(client: &Client, args: &Args, resolved: &Resolved) -> Result<()> {
    let cloud = &resolved.cloud;
    let by_person = cloud.sign_in.way != Way::Workload;
    if by_person && !interactive::may_prompt() {
        return token::is_signed_in(client, cloud.clone()).await;
    }
    let in_browser = matches!(cloud.sign_in.way, Way::Websso | Way::OidcCode | Way::OidcDevice);
    if in_browser && args.lasting.is_none() {
        return Ok(());
    }
    let lasting = args.lasting.unwrap_or_default();
    let mut request = LoginRequest {
        cloud: cloud.clone(),
        min_validity: lease_request::seconds(lasting),
        lifetime: None,
        switch_user: false,
        renew: false,
        prompt: true,
        remote: interactive::is_remote(),
    };
    let session = login::sign_in(client, &mut request).await?;
    if !session.renews && session.expires_at.duration_since(say::now()) < lasting {
        let (label, until) = (cloud.label(), say::until(session.expires_at));
        errln!(
            "ksb: {label}: you are signed in until {until}, sooner than asked: {}",
            say::why_no_longer(&session)
        );
    }
    Ok(())
}

async fn with_leases(
    client: &Client,
    args: &Args,
    clouds: Vec<Resolved>,
    grants: &mut Vec<Grant>,
    changes: &mut Changes,
) -> Result<Done> {
    for resolved in clouds {
        let mut request = args.limits.request(&resolved);
        request.for_caller = true;
        request.s3 = args.s3;
        let grant = lease_request::make(client, resolved, request, args.shape.names_scope()).await?;
        // A script's output stays its own.
        if std::io::stderr().is_terminal() || args.limits.unattended.is_some() {
            lease_request::describe(&grant.reply.lease, args.limits.unattended);
        } else {
            lease_request::notices(&grant.reply.lease);
        }
        grants.push(grant);
    }
    let env = Environment::of_this_process()?;
    let entries = grants
        .iter()
        .map(|grant| (grant.resolved.cloud.label().to_owned(), lease_env::entry(grant, args.shape)));
    let entries: Vec<_> = entries.filter(|(name, _)| name != OF_VARIABLES).collect();
    let names: Vec<_> = entries.iter().map(|(name, _)| name.clone()).collect();
    secure_yaml_check::warn(&names, args.shape, &env);
    let config = Config::load(&env)?;
    let folder = Folder::make(client.socket(), with_others(entries, &config))?;
    changes.add(match &grants[..] {
        [only] => lease_env::of_lease(only, args.shape, &env),
        several => lease_env::of_several(several, &env),
    });
    if let [Grant { reply, resolved, .. }] = &grants[..]
        && let Some(key) = &reply.s3
    {
        changes.add(lease_env::of_s3(key, &resolved.cloud.tls, &env));
    }
    changes.insert(CLOUDS_VARIABLE, folder.clouds().display().to_string());
    changes.insert(SECURE_VARIABLE, folder.secure().display().to_string());
    let only = if let [only] = &names[..] { Some(only.as_str()) } else { None };
    if let Some(only) = only.filter(|_| names_a_cloud(&args.command)) {
        // The `openstack` command would put it over the auth_type of each cloud that is named (openstacksdk's `get_one`).
        changes.take_back("OS_AUTH_TYPE");
        changes.insert("OS_CLOUD", only);
    }
    changes.insert(EXEC_VARIABLE, Outer::new(&config, only, changes.set()).to_variable());
    let program = args.command.first().map(Path::new).and_then(Path::file_name);
    let tool = program.unwrap_or_default().to_string_lossy();
    // The end of process 1 ends all others, before the agent could revoke anything.
    let is_init = rustix::process::getpid().is_init();
    if args.ephemeral || is_init {
        let beside = sign_in_watch::sign_ins(client, None, &tool);
        return Ok(Done::Like(child::run(&args.command, changes, beside).await?));
    }
    sign_in_watch::start(&tool)?;
    Ok(Done::Like(child::become_command(&args.command, changes)))
}

/// Whether the command, or the script that a shell has as its argument, chooses a cloud itself.
fn names_a_cloud(command: &[OsString]) -> bool {
    command.iter().any(|word| word.to_string_lossy().contains("--os-cloud"))
}

/// The other entries of the user's own clouds.yaml, or the system's, as they are. Those of the current directory's would pass
/// for the user's own here, and those of a secure.yaml are not written anywhere else.
fn with_others(mut entries: Vec<(String, Value)>, config: &Config<'_>) -> Vec<(String, Value)> {
    let file = config.clouds_file().filter(|source| !source.current_folder);
    let others = file.and_then(|source| clouds::entries_of(&source.file)).unwrap_or_default();
    for (name, entry) in others {
        if entry.is_object() && entries.iter().all(|(own, _)| *own != name) {
            entries.push((name, entry));
        }
    }
    entries
}

/// Ends a lease; says what Keystone still honours.
async fn end(client: &Client, grant: &Grant) {
    let id = &grant.reply.lease.id;
    let label = grant.resolved.cloud.label();
    match tokio::time::timeout(FAREWELL, lease::end(client, id)).await {
        Ok(Ok(reply)) => {
            for token in &reply.not_revoked {
                errln!("ksb: {}", say::not_revoked(label, token));
            }
        }
        // An agent that came meanwhile, or the lease's own end.
        Ok(Err(error)) if error.code == Code::UnknownLease => {}
        Ok(Err(error)) => errln!("{}", say::failure(&error.cloud(label))),
        Err(_) => {}
    }
}
