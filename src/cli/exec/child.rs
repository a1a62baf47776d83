//! The command: this process becomes it, or starts it, passes signals on and waits.

use std::env;
use std::ffi::{OsStr, OsString};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::task::Poll;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::signal::unix::{self, SignalKind};

use super::witness::Witness;
use crate::cli::lease_env::Changes;
use crate::cli::output::errln;
use crate::error::{Error, Result, reason};

/// Becomes the command: signals, job control and exit status are its own. Returns only if it cannot be run, with the
/// status to end with.
pub(super) fn become_command(words: &[OsString], changes: &Changes) -> u8 {
    let mut error = command(words, changes).exec();
    if let Some(mut shell) = script_without_interpreter(&error, words, changes) {
        error = shell.exec();
    }
    not_started(words, &error)
}

/// Runs the command to its end, and gives the status to end with. `beside` goes on meanwhile.
pub(super) async fn run(
    words: &[OsString],
    changes: &Changes,
    beside: impl Future<Output = ()>,
) -> Result<u8> {
    // From here on none of them ends us: a signal before there is a child waits for it.
    let mut signals = Signals::catch()?;
    let mut witness = Witness::start()?;
    let mut child = match spawn(words, changes) {
        Ok(child) => child,
        Err(error) => return Ok(not_started(words, &error)),
    };
    tokio::pin!(beside);
    let mut is_over = false;
    loop {
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        tokio::select! {
            ended = child.wait() => {
                return ended.map(status).map_err(|error| Error::io("waiting", &error));
            }
            signal = signals.next() => {
                let has_it = witness.saw(signal).await?;
                if let (false, Some(pid)) = (has_it, pid) {
                    kill_process(pid, signal).ok();
                }
            }
            () = &mut beside, if !is_over => is_over = true,
        }
    }
}

fn spawn(words: &[OsString], changes: &Changes) -> io::Result<Child> {
    let start = |command: Command| tokio::process::Command::from(command).spawn();
    match start(command(words, changes)) {
        Err(error) => match script_without_interpreter(&error, words, changes) {
            Some(shell) => start(shell),
            None => Err(error),
        },
        started => started,
    }
}

fn command(words: &[OsString], changes: &Changes) -> Command {
    let (program, arguments) =
        words.split_first().map_or((OsStr::new(""), &[][..]), |(program, rest)| (program, rest));
    let mut command = Command::new(program);
    command.args(arguments);
    for name in changes.gone() {
        command.env_remove(name);
    }
    command.envs(changes.set());
    command
}

/// Shells and env(1) run a script without `#!` by sh (POSIX, execvp).
fn script_without_interpreter(error: &io::Error, words: &[OsString], changes: &Changes) -> Option<Command> {
    if error.raw_os_error() != Some(Errno::NOEXEC.raw_os_error()) {
        return None;
    }
    let (program, arguments) = words.split_first()?;
    let script = found_on_path(program)?.into_os_string();
    let shell: Vec<_> =
        [OsString::from("/bin/sh"), script].into_iter().chain(arguments.iter().cloned()).collect();
    Some(command(&shell, changes))
}

fn found_on_path(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let path = env::var_os("PATH")?;
    let mut files = env::split_paths(&path).map(|directory| directory.join(program));
    files.find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}

/// As shells have it.
fn not_started(words: &[OsString], error: &io::Error) -> u8 {
    let program = words.first().map_or(OsStr::new(""), OsString::as_os_str).display();
    if error.kind() == ErrorKind::NotFound {
        errln!("ksb: {program}: no such command");
        return 127;
    }
    errln!("ksb: {program}: cannot be run: {}", reason(error));
    126
}

fn status(ended: ExitStatus) -> u8 {
    let code = ended.code().or_else(|| Some(128 + ended.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Signals that others send us and mean for the command.
struct Signals(Vec<(unix::Signal, Signal)>);

impl Signals {
    fn catch() -> Result<Self> {
        let kinds = [
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::quit(), Signal::QUIT),
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::hangup(), Signal::HUP),
            (SignalKind::user_defined1(), Signal::USR1),
            (SignalKind::user_defined2(), Signal::USR2),
        ];
        let caught = kinds.into_iter().map(|(kind, signal)| Ok((unix::signal(kind)?, signal)));
        let failed = |error: io::Error| Error::io("signals", &error);
        Ok(Self(caught.collect::<io::Result<_>>().map_err(failed)?))
    }

    async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (stream, signal) in &mut self.0 {
                if let Poll::Ready(Some(())) = stream.poll_recv(context) {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}
