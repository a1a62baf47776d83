//! Starting programs from a process of many threads.
//!
//! Until a new program has taken over it holds whatever is open here, also a listener that another test has just closed,
//! or the lock of a vault: for a moment these seem busy. Those who need them wait for that moment to pass, so every
//! program is started here (`tests/it/architecture.rs` looks).

use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many are about to take a port or a lock.
static TAKING: Mutex<usize> = Mutex::new(0);
static TAKEN: Condvar = Condvar::new();

/// Starts a program as it is; it holds nothing of ours when this returns.
pub fn raw(command: &mut Command) -> Child {
    // A program never waits in front of those who take: one of them may itself wait for what only another can do.
    let alone = TAKEN.wait_while(taking(), |taking| *taking > 0).unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn().unwrap();
    drop(alone);
    child
}

/// Starts a program that prints into pipes.
pub fn start(command: &mut Command) -> Child {
    raw(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// Runs a program to its end.
pub fn output(command: &mut Command) -> Output {
    start(command).wait_with_output().unwrap()
}

/// Does what takes a port or a lock, while no program is being started.
pub fn undisturbed<T>(take: impl FnOnce() -> T) -> T {
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            *taking() -= 1;
            TAKEN.notify_all();
        }
    }
    *taking() += 1;
    let _done = Done;
    take()
}

fn taking() -> MutexGuard<'static, usize> {
    TAKING.lock().unwrap_or_else(PoisonError::into_inner)
}
