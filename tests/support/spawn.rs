//! Starting programs from a process of many threads.
//!
//! Until a new program has taken over it holds whatever is open here, also a listener that another
//! test has just closed: for a moment the port seems busy. Those who need a port wait for that moment
//! to pass, as long as programs are started with [`start`].

use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock};

static STARTING: RwLock<()> = RwLock::new(());

/// Starts a program that prints into pipes; it holds nothing of ours when this returns.
pub fn start(command: &mut Command) -> Child {
    let _alone = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Does what makes somebody listen, while no program is being started.
pub fn undisturbed<T>(listen: impl FnOnce() -> T) -> T {
    let _others = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    listen()
}
