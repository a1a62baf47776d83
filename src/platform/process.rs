//! A process of this machine, told from a later one with the same number.

use std::fs;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::fd_limit;

/// Number and start time (proc_pid_stat(5), field 22, in clock ticks after the boot) of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it began.
    pub started: u64,
    /// The boot's id.
    pub boot: String,
}

impl Process {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the command's name in parentheses, which may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let started = fields.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started, boot: super::machine::boot() })
    }

    /// Returns when it has ended.
    pub async fn ended(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(descriptor) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return };
        // Only now is the number held on to: it may have become another's before.
        if Self::of(self.pid).as_ref() != Some(self) {
            return;
        }
        if let Ok(descriptor) = fd_limit::readable(descriptor) {
            descriptor.readable().await.map(drop).ok();
        }
    }
}

/// The file that this process runs. The kernel alone tells: of a process that may not be traced nobody else can see it.
pub fn program() -> Option<String> {
    Some(fs::read_link("/proc/self/exe").ok()?.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_watched_until_it_ends_and_no_later_one_is_taken_for_it() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        let stranger = Process { started: process.started + 1, ..process.clone() };
        stranger.ended().await;
        let watched = tokio::spawn(async move { process.ended().await });
        tokio::task::yield_now().await;
        assert!(!watched.is_finished());
        child.kill().unwrap();
        watched.await.unwrap();
        child.wait().unwrap();
    }
}
