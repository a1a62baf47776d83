//! `ksb env`

use clap::ValueEnum;
use jiff::SignedDuration;

use super::lease_env::{self, Changes, Shape};
use super::lease_request::Grant;
use super::shell::{self, Format, Shell};
use super::{Done, cloud_args, duration, lease, lease_request};
use crate::cli::output;
use crate::clouds::Environment;
use crate::error::Result;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cloud: cloud_args::CloudArgs,
    #[command(flatten)]
    scope: cloud_args::ScopeArgs,
    /// How long the variables are good for, such as 4h [default: 12h]; exit with 4 if they are not
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    lifetime: Option<SignedDuration>,
    /// The shell that evaluates them
    #[arg(long, value_enum, default_value_t = Shell::Sh)]
    shell: Shell,
    /// Print a .env file, for programs and containers: NAME=value
    #[arg(long, conflicts_with = "shell")]
    dotenv: bool,
    /// A program that ignores clouds.yaml and wants variables of its own
    #[arg(long = "tool", value_enum, value_name = "PROGRAM")]
    program: Option<Program>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Program {
    /// A remote with the cloud's name: rclone lsd demo:
    Rclone,
    /// python-swiftclient: swift list
    Swift,
}

pub(super) async fn run(args: Args) -> Result<Done> {
    let resolved = cloud_args::resolve(&args.cloud, &args.scope)?;
    let mut request = lease_request::Limits::default().request(&resolved);
    request.ttl = Some(lease_request::seconds(args.lifetime.unwrap_or(lease_request::LIFETIME)));
    let (client, env) = (cloud_args::client()?, Environment::of_this_process()?);
    let grant = lease_request::make(&client, resolved, request, false).await?;
    let format = if args.dotenv { Format::Dotenv } else { Format::Shell(args.shell) };
    match shell::text(format, &changes(&grant, args.program, &env)) {
        Ok(text) => output::exact(&text),
        Err(error) => {
            // Nobody will know it.
            lease::end(&client, &grant.reply.lease.id).await?;
            return Err(error);
        }
    }
    Ok(lease_request::describe(&grant.reply.lease, args.lifetime))
}

fn changes(grant: &Grant, program: Option<Program>, env: &Environment) -> Changes {
    match program {
        Some(Program::Rclone) => lease_env::of_rclone(grant),
        // Its library looks for the version here only.
        Some(Program::Swift) => {
            let mut changes = lease_env::of_lease(grant, Shape::Appcred, env);
            changes.insert("ST_AUTH_VERSION", "3");
            changes
        }
        None => lease_env::of_lease(grant, Shape::Appcred, env),
    }
}
