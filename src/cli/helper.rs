//! Processes that other commands start for themselves: not for users.

use std::ffi::OsString;

use super::exec;
use crate::error::{Error, Result};
use crate::platform::daemon;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    helper: Helper,
}

#[derive(clap::Subcommand)]
enum Helper {
    /// Start `ksb` with these arguments as a daemon, and end
    Detach {
        #[arg(last = true, required = true)]
        arguments: Vec<OsString>,
    },
    /// Show the sign-ins that a command of `ksb exec` waits for, until it ends
    SignIns(exec::SignInsArgs),
    /// Take no signal until standard input ends
    Witness,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("this helper", &error);
    match args.helper {
        Helper::Detach { arguments } => daemon::detach(&arguments).map_err(failed),
        Helper::SignIns(args) => exec::show_sign_ins(args).await,
        Helper::Witness => {
            let mut stdin = std::io::stdin();
            std::io::copy(&mut stdin, &mut std::io::sink()).map(drop).map_err(failed)
        }
    }
}
