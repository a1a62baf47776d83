//! The command: started with another environment, given every signal that is meant for it, waited for.

use std::ffi::OsString;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::task::Poll;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::signal::unix::{self, SignalKind};

use crate::cli::environment::Changes;
use crate::cli::terminal;
use crate::error::{Code, Error, Result};

/// Runs the command to its end, and gives the status to end with. `beside` goes on meanwhile.
pub(super) async fn run(
    command: &[OsString],
    changes: &Changes,
    beside: impl Future<Output = ()>,
) -> Result<u8> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| Error::new(Code::InvalidRequest, "there is no command to run"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    for name in changes.gone() {
        command.env_remove(name);
    }
    command.envs(changes.set());
    // From here on none of them ends us: a signal before there is a child waits for it.
    let mut signals = Signals::catch()?;
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(not_started(program, &error)),
    };
    tokio::pin!(beside);
    let mut is_over = false;
    loop {
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        tokio::select! {
            ended = child.wait() => {
                return ended.map(status).map_err(|error| Error::new(Code::Io, format!("waiting: {error}")));
            }
            signal = signals.next() => {
                // The terminal gives these to everybody in its foreground.
                let has_it = matches!(signal, Signal::INT | Signal::QUIT) && terminal::in_foreground();
                if let (false, Some(pid)) = (has_it, pid) {
                    kill_process(pid, signal).ok();
                }
            }
            () = &mut beside, if !is_over => is_over = true,
        }
    }
}

/// As shells have it.
fn not_started(program: &OsString, error: &std::io::Error) -> u8 {
    let program = program.display();
    if error.kind() == ErrorKind::NotFound {
        eprintln!("ksb: {program}: no such command");
        return 127;
    }
    eprintln!("ksb: {program}: cannot be run: {error}");
    126
}

fn status(ended: ExitStatus) -> u8 {
    let code = ended.code().or_else(|| Some(128 + ended.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// What others send us and mean for the command.
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
        let failed = |error: std::io::Error| Error::new(Code::Io, format!("signals: {error}"));
        Ok(Self(caught.collect::<std::io::Result<_>>().map_err(failed)?))
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
