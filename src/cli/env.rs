//! `ksb env`

use clap::ValueEnum;
use jiff::SignedDuration;

use super::environment::{self, Changes, Shape};
use super::grant::Grant;
use super::shell::{self, Format, Shell};
use super::{Done, duration, grant, lease, target};
use crate::cli::output;
use crate::clouds::Environment;
use crate::error::Result;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cloud: target::CloudArgs,
    #[command(flatten)]
    scope: target::ScopeArgs,
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
    let resolved = target::resolve(&args.cloud, &args.scope)?;
    let mut request = grant::Limits::default().request(&resolved);
    request.ttl = Some(grant::seconds(args.lifetime.unwrap_or(grant::LIFETIME)));
    let (client, env) = (target::client()?, Environment::of_this_process()?);
    let grant = grant::make(&client, resolved, request, false).await?;
    let format = if args.dotenv { Format::Dotenv } else { Format::Shell(args.shell) };
    match shell::text(format, &changes(&grant, args.program, &env)) {
        Ok(text) => output::exact(&text),
        Err(error) => {
            // Nobody will know it.
            lease::end(&client, &grant.reply.lease.id).await?;
            return Err(error);
        }
    }
    Ok(grant::describe(&grant.reply.lease, args.lifetime))
}

fn changes(grant: &Grant, program: Option<Program>, env: &Environment) -> Changes {
    match program {
        Some(Program::Rclone) => environment::of_rclone(grant),
        // Its library looks for the version here only.
        Some(Program::Swift) => {
            let mut changes = environment::of_lease(grant, Shape::Appcred, env);
            changes.insert("ST_AUTH_VERSION", "3");
            changes
        }
        None => environment::of_lease(grant, Shape::Appcred, env),
    }
}
