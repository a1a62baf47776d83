//! Programs of ours that outlive the command which started them, begun as daemon(7) wants it.
//!
//! The command itself cannot prepare that: `ksb exec` becomes another program, which is to have the descriptors and the
//! signal mask that it was started with. A process in between, which ends at once, does.

use std::ffi::OsString;
use std::io;
use std::process::Command;

use nix::sys::signal::SigSet;
use tokio::signal::unix::{self, SignalKind};

use super::fd_limit;

/// A command that starts `ksb` with these arguments as a daemon. Its standard streams are the daemon's. It ends when the daemon is
/// started, and must be waited for.
pub fn command(arguments: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["helper", "detach", "--"]).args(arguments);
    Ok(command)
}

/// In that process: starts the daemon, in a session of its own, with the standard streams alone, an empty signal mask and
/// default dispositions.
pub fn detach(arguments: &[OsString]) -> io::Result<()> {
    rustix::process::setsid()?;
    fd_limit::close_on_exec();
    let _handlers = handle_every_signal();
    SigSet::empty().thread_set_mask()?;
    Command::new(std::env::current_exe()?).args(arguments).spawn().map(drop)
}

/// execve(2) makes the disposition of a signal that has a handler the default one, but keeps an ignored one.
fn handle_every_signal() -> Vec<unix::Signal> {
    let last = nix::libc::SIGRTMAX();
    // Some cannot be handled (SIGKILL), or are not to be (SIGSEGV).
    (1..=last).filter_map(|signal| unix::signal(SignalKind::from_raw(signal)).ok()).collect()
}
