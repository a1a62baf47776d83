//! The command line: one file per subcommand. Prints, opens browsers, never decides.

mod adopt;
mod agent;
mod audit;
mod cloud;
mod cloud_args;
mod clouds;
mod confirm;
mod doctor;
mod env;
mod exec;
mod helper;
mod lease;
mod lease_env;
mod lease_request;
mod lock;
mod login;
mod logout;
mod output;
mod projects;
mod pythons;
mod refresh;
mod say;
mod service;
mod setup;
mod shell;
mod sign_in;
mod status;
mod stop;
mod terminal;
mod token;
mod trust;
mod unlock;
mod vault;
mod yaml;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::output::errln;
use crate::error::{Code, Error, Result};
use crate::model::duration;

const AFTER_HELP: &str = "\
CLOUD is an entry of clouds.yaml; without it $OS_CLOUD, then the only entry there is.

Exit status: 0 done, 1 failed (`logout`: something is not revoked yet),
2 wrong usage, 4 it ends sooner than asked (--at-least, --lifetime, --unattended),
75 a person is needed but this caller may not prompt, 130 interrupted. `ksb exec`
ends as the command does, by its status or signal; 126 or 127 when it cannot be started.

Environment: KSB_SOCK (the agent's socket), KSB_PROMPT=always|never (may a browser
be opened), BROWSER (which one), KSB_PASSPHRASE_FILE (opens the vault, read by the
agent), KSB_LOG (what the agent logs, such as debug).";

/// Sign in to OpenStack once, in your browser; every tool on this machine just works.
#[derive(Parser)]
#[command(name = "ksb", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sign in to a cloud
    Login(login::Args),
    /// Sign out: revoke every issued token, end the leases, and forget the session
    Logout(logout::Args),
    /// Show sessions, leases and the state of the agent
    Status(status::Args),
    /// Print a token; sign in first if needed
    Token(token::Args),
    /// Run a command that uses your clouds: Terraform, any SDK, without a change to its configuration
    Exec(exec::Args),
    /// Print variables by which any tool uses a cloud for some hours
    Env(env::Args),
    /// Make, list and revoke leases: credentials for tools, good on this machine only
    Lease(lease::Args),
    /// Reload your roles and groups: renew the session and drop its scoped tokens
    Refresh(cloud_args::CloudArgs),
    /// List the projects and domains that you can access
    Projects(projects::Args),
    /// Check this machine and your clouds, and print remedies
    Doctor(doctor::Args),
    /// Write an entry of clouds.yaml from the address of a dashboard or of Keystone, an openrc file or a clouds.yaml
    Setup(setup::Args),
    /// Show entries of clouds.yaml, add entries for tools that take no plugin, move entries to the plugin
    Clouds(clouds::Args),
    /// Trust a cloud that the clouds.yaml of the current directory names
    Trust(cloud_args::CloudArgs),
    /// Answer confirmation prompts in this terminal, on a machine without a desktop
    Confirm,
    /// Show which programs were given or refused a token
    Audit(audit::Args),
    /// Stop issuing tokens and erase them from memory, keeping only the encrypted vault
    Lock,
    /// Unlock the agent and open the vault
    Unlock,
    /// Show where sessions are kept, or change the key store
    Vault(vault::Args),
    /// Run, start, stop or restart the agent (other commands start it by themselves)
    Agent(agent::Args),
    /// Install a systemd user unit that starts the agent on demand, or an autostart entry of the desktop
    Service(service::Args),
    #[command(hide = true)]
    Helper(helper::Args),
    /// Print a completion script for your shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How a command that did not fail ends.
enum Done {
    Ok,
    /// Done, but it does not last for as long as asked.
    TooShort,
    /// Something is wrong, and was said.
    Failed,
    /// `exec`: as its command did.
    Like(u8),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Error::io("ksb cannot start", &error)),
    };
    let outcome = runtime.block_on(run(command)).and_then(|done| output::finish().map(|()| done));
    // A browser command that blocks must not keep us.
    runtime.shutdown_background();
    match outcome {
        Ok(Done::Ok) => ExitCode::SUCCESS,
        Ok(Done::Failed) => ExitCode::FAILURE,
        Ok(Done::TooShort) => ExitCode::from(4),
        Ok(Done::Like(status)) => ExitCode::from(status),
        Err(error) => fail(&error),
    }
}

async fn run(command: Command) -> Result<Done> {
    match command {
        Command::Login(args) => return login::run(args).await,
        Command::Exec(args) => return Box::pin(exec::run(args)).await,
        Command::Env(args) => return env::run(args).await,
        Command::Lease(args) => return lease::run(args).await,
        Command::Logout(args) => return logout::run(args).await,
        Command::Doctor(args) => return Box::pin(doctor::run(args)).await,
        Command::Status(args) => status::run(args).await?,
        Command::Token(args) => token::run(args).await?,
        Command::Refresh(args) => refresh::run(args).await?,
        Command::Projects(args) => projects::run(args).await?,
        Command::Clouds(args) => Box::pin(clouds::run(args)).await?,
        Command::Setup(args) => Box::pin(setup::run(args)).await?,
        Command::Trust(args) => trust::run(args).await?,
        Command::Lock => lock::run().await?,
        Command::Confirm => confirm::run().await?,
        Command::Audit(args) => audit::run(&args)?,
        Command::Unlock => unlock::run().await?,
        Command::Vault(args) => vault::run(args).await?,
        Command::Agent(args) => agent::run(args).await?,
        Command::Service(args) => service::run(args).await?,
        Command::Helper(args) => helper::run(args).await?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ksb", &mut script);
            output::write(|stdout| stdout.write_all(&script));
        }
    }
    Ok(Done::Ok)
}

/// One line: what failed, for which cloud, and what helps.
fn fail(error: &Error) -> ExitCode {
    errln!("{}", say::failure(error));
    ExitCode::from(match error.code {
        Code::SignInNeeded | Code::SignInCoolingDown | Code::VaultSealed | Code::Locked => 75,
        _ => 1,
    })
}
