//! Which program is at the other end of a connection: its executable, and what started it.
//!
//! Numbers of processes are given again. A program is named only if its process had started before it connected (to the
//! kernel's hundredth of a second) and was the same one before and after it was looked at, or if it holds the
//! connection's other end while it is looked at.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::process::Process;
use super::tcp_owner;

/// More of those who started it tell nothing.
const PARENTS: usize = 8;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The process that had this number when it connected, which was so long after the boot.
    Process {
        /// Its number.
        pid: u32,
        /// When we accepted it.
        since: Duration,
    },
    /// Whoever holds the other end of a TCP connection.
    Socket {
        /// Our end.
        local: SocketAddr,
        /// Theirs.
        remote: SocketAddr,
    },
    /// The system does not tell.
    Unknown,
}

impl Peer {
    /// The process of this number, which connects now.
    pub fn process(pid: Option<u32>) -> Self {
        // In another namespace of processes it has no number here.
        match pid.filter(|pid| *pid != 0) {
            Some(pid) => Self::Process { pid, since: since_boot() },
            None => Self::Unknown,
        }
    }

    /// Its number, where that is known without a search.
    pub fn pid(&self) -> Option<u32> {
        if let Self::Process { pid, .. } = self { Some(*pid) } else { None }
    }
}

/// A program that runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Program {
    /// Its process.
    pub pid: u32,
    /// What it calls itself (proc_pid_comm(5)): of a script, the script's name.
    pub name: String,
    /// Its executable: of a script, the interpreter. None where the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<PathBuf>,
    /// The names of those who started it, the nearest first, eight at most.
    pub parents: Vec<String>,
    /// When its process began, in the kernel's ticks after the boot.
    pub started: u64,
}

impl Program {
    /// The program at the other end; `None` when it is gone, or may be another one by now. Who holds a TCP connection is
    /// looked for among the `likely` processes first: to look at all takes milliseconds.
    pub fn of(peer: &Peer, likely: &[u32]) -> Option<Self> {
        match peer {
            Peer::Process { pid, since } => {
                Self::seen(&Process::of(*pid)?).filter(|program| program.had_started(*since))
            }
            Peer::Socket { local, remote } => {
                let inode = tcp_owner::inode_of(*local, *remote)?;
                let process = Process::of(tcp_owner::holder_of_socket(inode, likely)?)?;
                let program = Self::seen(&process)?;
                (tcp_owner::inode_of(*local, *remote) == Some(inode)).then_some(program)
            }
            Peer::Unknown => None,
        }
    }

    fn seen(process: &Process) -> Option<Self> {
        let pid = process.pid;
        let mut parents = Vec::new();
        let mut next = parent_of(pid);
        while let Some(parent) = next.filter(|_| parents.len() < PARENTS) {
            parents.extend(name_of(parent));
            next = parent_of(parent);
        }
        let program = Self {
            pid,
            name: name_of(pid)?,
            executable: executable_of(pid),
            parents,
            started: process.started,
        };
        (Process::of(pid).as_ref() == Some(process)).then_some(program)
    }

    /// Whether its process was there so long after the boot, if it has not ended before.
    pub fn had_started(&self, when: Duration) -> bool {
        u128::from(self.started) <= when.as_millis() * u128::from(clock_ticks_per_second()) / 1000
    }

    /// Whether its process, which lives, has not become another program (execve(2)).
    pub fn still_runs(&self) -> bool {
        // One that is about to end has no executable any more.
        let executable = executable_of(self.pid);
        name_of(self.pid).as_deref() == Some(&self.name)
            && (executable.is_none() || executable == self.executable)
    }

    /// The same, or a program that one of this name started: tools have helpers.
    pub fn is_part_of(&self, meant: &str) -> bool {
        self.is(meant) || self.parents.iter().any(|parent| parent == meant)
    }

    /// Whether a user means this program by a path, or by a name.
    pub fn is(&self, meant: &str) -> bool {
        let executable = self.executable.as_deref();
        if meant.starts_with('/') {
            return executable.is_some_and(|path| path.as_os_str() == meant);
        }
        self.name == meant || executable.and_then(|path| path.file_name()).is_some_and(|name| name == meant)
    }
}

/// Tells that a process lives on, without another look at it.
pub struct Pulse(OwnedFd);

impl Pulse {
    /// Of a program, while it runs.
    pub fn of(program: &Program) -> Option<Self> {
        let pid = i32::try_from(program.pid).ok().and_then(Pid::from_raw)?;
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Only now is it this process and no other whose end the descriptor tells.
        let is_same = Process::of(program.pid).is_some_and(|now| now.started == program.started);
        is_same.then_some(Self(descriptor))
    }

    /// Whether it has not ended.
    pub fn beats(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&now)), Ok(0))
    }
}

/// The names of the processes that a process was started by, the nearest first.
pub fn names_of_parents(pid: u32) -> Vec<String> {
    let parents = std::iter::successors(parent_of(pid), |pid| parent_of(*pid));
    parents.filter_map(name_of).collect()
}

fn name_of(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

fn executable_of(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command's name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok().filter(|parent| *parent != 0)
}

/// Time since the boot, sleep included, as the kernel dates processes.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    fn me() -> u32 {
        std::process::id()
    }

    #[test]
    fn a_program_is_named_with_those_who_started_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let peer = Peer::process(Some(child.id()));
        let program = Program::of(&peer, &[]).unwrap();
        assert_eq!((program.pid, &*program.name), (child.id(), "cat"));
        assert_eq!(Some(&program.parents[0]), name_of(me()).as_ref());
        assert!(program.is("cat") && !program.is("dog"));
        let path = program.executable.clone().unwrap();
        assert!(program.is(path.to_str().unwrap()) && !program.is("/bin/nothing"));
        let pulse = Pulse::of(&program).unwrap();
        assert!(pulse.beats());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!pulse.beats());
        assert_eq!(Program::of(&peer, &[]), None);
    }

    #[test]
    fn a_process_that_started_after_the_connection_was_accepted_is_not_the_peer() {
        let early = Duration::from_millis(1);
        assert_eq!(Program::of(&Peer::Process { pid: me(), since: early }, &[]), None);
        assert!(Program::of(&Peer::process(Some(me())), &[]).is_some());
        assert_eq!(Peer::process(Some(0)), Peer::Unknown);
    }

    #[test]
    fn the_holder_of_a_tcp_connection_is_found_while_it_holds_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let client = TcpStream::connect(local).unwrap();
        let (_server, remote) = listener.accept().unwrap();
        let peer = Peer::Socket { local, remote };
        assert_eq!(Program::of(&peer, &[]).unwrap().pid, me());
        drop(client);
        assert_eq!(Program::of(&peer, &[]), None);
    }
}
