//! Starting programs from a process of many threads.
//!
//! Until a new program has taken over it holds whatever is open here, also a listener that another test has just closed,
//! or the lock of a vault: for a moment these seem busy. Those who need them wait for that moment to pass, so every
//! program is started here (`tests/it/architecture.rs` looks).

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::http::PATIENCE;

#[derive(Default)]
struct Programs {
    /// How many are about to take a port or a lock.
    taking: usize,
    /// Programs that may not have taken over yet.
    starting: Vec<u32>,
}

static PROGRAMS: Mutex<Programs> = Mutex::new(Programs { taking: 0, starting: Vec::new() });
static TAKEN: Condvar = Condvar::new();

/// Starts a program as it is.
pub fn raw(command: &mut Command) -> Child {
    // A program never waits in front of those who take: one of them may itself wait for what only another can do.
    let mut programs =
        TAKEN.wait_while(programs(), |programs| programs.taking > 0).unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn().unwrap();
    programs.starting.retain(|pid| !has_taken_over(*pid));
    programs.starting.push(child.id());
    child
}

/// Whether a process is a program of its own, with nothing of ours. Its parent goes on as soon as execve(2) has exchanged
/// the memory (CLONE_VFORK), which is before the kernel closes what is open: on a busy machine that may take long. By its
/// first libraries, or threads, it runs.
fn has_taken_over(pid: u32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    // None: it has ended, or lets nobody look.
    maps.is_empty() || maps.contains("/libc.") || {
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        threads.map_or(0, Iterator::count) != 1
    }
}

/// Starts a program that prints into pipes.
pub fn start(command: &mut Command) -> Child {
    raw(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// Runs a program to its end.
pub fn output(command: &mut Command) -> Output {
    start(command).wait_with_output().unwrap()
}

/// Copies a program. By another process: what is written here cannot be run for as long as a program that is being started
/// holds it open.
#[track_caller]
pub fn copy(program: impl AsRef<Path>, to: impl AsRef<Path>) {
    let copied = output(Command::new("install").arg("-m755").args([program.as_ref(), to.as_ref()]));
    assert!(copied.status.success(), "{copied:?}");
}

/// Does what takes a port or a lock, while no program is being started.
pub fn undisturbed<T>(take: impl FnOnce() -> T) -> T {
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            programs().taking -= 1;
            TAKEN.notify_all();
        }
    }
    programs().taking += 1;
    let _done = Done;
    let began = Instant::now();
    while let Some(pid) = first_that_starts() {
        assert!(began.elapsed() < PATIENCE, "process {pid} does not take over");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    take()
}

/// Forgets those that have taken over.
fn first_that_starts() -> Option<u32> {
    let starting = &mut programs().starting;
    starting.retain(|pid| !has_taken_over(*pid));
    starting.first().copied()
}

fn programs() -> MutexGuard<'static, Programs> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}
