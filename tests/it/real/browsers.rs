//! The browsers that a front's programs opened, as their log tells it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait;

/// The log that `tests/stack/browser` writes.
pub struct Browsers {
    log: PathBuf,
}

impl Browsers {
    pub fn new(log: PathBuf) -> Self {
        Self { log }
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Their processes, in the order in which they were opened.
    pub fn all(&self) -> Vec<u32> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        // `time pid open URL` and later `time pid end STATE SECONDS URL`
        let words = log.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        words.filter(|words| words[2] == "open").map(|words| words[1].parse().unwrap()).collect()
    }

    /// The one that was opened after `earlier` others, as soon as it is.
    #[track_caller]
    pub fn opened_after(&self, earlier: usize) -> u32 {
        wait::until("a browser", || self.all().get(earlier).copied())
    }

    /// Waits until all have ended by themselves: a profile takes one at a time.
    #[track_caller]
    pub fn ended(&self) {
        wait::until("the browsers' ends", || self.all().into_iter().all(is_gone).then_some(()));
    }

    /// Closes those that are still open, as a user does who has seen enough.
    pub fn close(&self) {
        self.all().into_iter().for_each(|pid| end(pid, Signal::TERM));
        let all_gone = || self.all().into_iter().all(is_gone).then_some(());
        if wait::at_most(Duration::from_secs(10), all_gone).is_none() {
            self.all().into_iter().for_each(|pid| end(pid, Signal::KILL));
        }
    }
}

fn end(pid: u32, signal: Signal) {
    if let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        && !is_gone(pid)
    {
        kill_process(process, signal).ok();
    }
}

/// Its number may be another process's by now.
fn is_gone(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    !String::from_utf8_lossy(&command).contains("browser.mjs")
}

/// The processes that started the process, nearest first.
pub fn ancestors(pid: u32) -> Vec<u32> {
    let parent = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may hold anything, spaces and brackets too.
        let parent = stat.rsplit(')').next()?.split(' ').nth(2)?.parse().ok()?;
        (parent > 1).then_some(parent)
    };
    std::iter::successors(parent(&pid), parent).collect()
}
