//! `ksb agent run|start|stop|restart`

mod journal;

use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::process;

use clap::Subcommand;
use rustix::stdio::dup2_stdout;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::{cloud_args, stop};
use crate::agent::Start;
use crate::cli::output::{errln, outln};
use crate::error::{Code, Error, Result};
use crate::platform::current_exe;
use crate::platform::paths::Paths;
use crate::{agent, client, vault};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Run as a daemon that `ksb helper detach` started; one byte on standard output means ready
    #[arg(long, hide = true)]
    detached: bool,
    /// Go on in the place of the process that this one was, with what it left on standard input
    #[arg(long, hide = true, conflicts_with = "detached")]
    handed: bool,
    /// Whether this program could take over from an agent that hands over in this format: exit with 0, or 1
    #[arg(long, hide = true, value_name = "FORMAT", conflicts_with_all = ["detached", "handed"])]
    takes_over: Option<u32>,
    /// Ask the desktop's keyring for the agent that is at the other end of standard input, and end
    #[arg(long, hide = true, conflicts_with_all = ["detached", "handed"])]
    keyring_helper: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent in the foreground
    Run,
    /// Start the agent in the background unless one runs, and return when it is ready
    Start,
    /// End the agent; what is not kept in a vault is forgotten
    Stop,
    /// End the agent and start it again, so that it reads its settings
    Restart,
}

pub(super) async fn run(args: Args) -> Result<()> {
    match args.command {
        Some(Command::Start) => return start(),
        Some(Command::Stop) => return stop::run().await,
        Some(Command::Restart) => {
            stop::run().await?;
            return start();
        }
        Some(Command::Run) | None => {}
    }
    if let Some(format) = args.takes_over {
        outln!("ksb {}", env!("CARGO_PKG_VERSION"));
        let known = (1..=current_exe::HANDOVER).contains(&format);
        let unknown = || Error::new(Code::HandoverRefused, format!("format {format} is not known here"));
        return if known { Ok(()) } else { Err(unknown()) };
    }
    // `Targets` knows what `EnvFilter` does of levels and modules, without a regex engine in everybody's memory.
    let wish = std::env::var("KSB_LOG").ok().and_then(|wish| wish.parse().ok());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if journal::is_journal(std::io::stderr()) {
        lines.with_ansi(false).event_format(journal::Lines::new()).boxed()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(wish.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))))
        .init();
    if args.keyring_helper {
        return vault::run_keyring_helper();
    }
    let paths = Paths::from_env()?;
    if args.detached {
        agent::run(&paths, Start::Fresh, |_| release_starter()).await
    } else if args.handed {
        agent::run(&paths, Start::Handed, |_| ()).await
    } else {
        without_our_environment()?;
        agent::run(&paths, Start::Fresh, |socket| errln!("ksb: ready on {}", socket.display())).await
    }
}

fn start() -> Result<()> {
    client::ensure(cloud_args::client()?.paths())
}

/// Starts anew without what an agent has no use for: it would lie in its memory for as long as it lives.
fn without_our_environment() -> Result<()> {
    if current_exe::is_environment_of_an_agent() {
        return Ok(());
    }
    let error = process::Command::new(current_exe::OWN)
        .args(std::env::args_os().skip(1))
        .env_clear()
        .envs(current_exe::environment_of_an_agent())
        .exec();
    Err(Error::io(current_exe::OWN, &error))
}

/// Tells the starter that we are ready and lets go of its pipe.
fn release_starter() {
    let mut stdout = std::io::stdout();
    let _starter_is_gone = stdout.write_all(b"\n").and_then(|()| stdout.flush());
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        dup2_stdout(&null).ok();
    }
}
