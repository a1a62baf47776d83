//! `ksb clouds`: entries of clouds.yaml, also those that point at the agent's own Keystone, for tools that take no plugin.
//!
//! Each of these has a lease of its own: the id stands in clouds.yaml, the secret in secure.yaml and nowhere else.

mod add;
mod draft;
mod own;
mod remove;

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

use super::{adopt, cloud, cloud_args};
use crate::error::Result;

pub(super) use own::own_entries;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show an entry as it is resolved here: files, environment, defaults; secrets masked
    Show(cloud::Args),
    /// Write an entry that every OpenStack tool can use without a plugin: Terraform, Ansible, any SDK
    #[command(after_help = "\
The entry has a lease that lives until `ksb clouds remove`: an application credential that is good at this
machine's own Keystone only, and only for you. It uses your sign-in; nobody stays signed in by it.")]
    Add(Add),
    /// Take such entries out again, and end what their tokens can do
    Remove {
        /// Entries that `ksb clouds add` wrote
        #[arg(value_name = "NAME", required = true, value_parser = NonEmptyStringValueParser::new())]
        names: Vec<String>,
    },
    /// Move entries to the plugin, without a change to clouds.yaml
    Adopt(adopt::Args),
}

#[derive(clap::Args)]
struct Add {
    #[command(flatten)]
    cloud: cloud_args::CloudArgs,
    /// What to call the entry [default: CLOUD-ksb]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// One entry for each project that you can use, called NAME-PROJECT
    #[arg(long)]
    each_project: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Show(args) => cloud::run(args),
        Command::Adopt(args) => adopt::run(&args),
        Command::Add(args) => Box::pin(add::run(args)).await,
        Command::Remove { names } => remove::run(&names).await,
    }
}
