//! The audit log: what was given or refused, to which program, for which cloud. JSON lines, and no secrets.
//!
//! Whoever notes something waits for nothing: a thread of its own looks at processes and writes, and says when it cannot.

mod file;
mod program_cache;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use crate::error::Code;
use crate::platform::machine;
use crate::platform::peer_program::{Peer, Program};
use crate::sync::lock_unpoisoned;

pub use file::{File, read};
use program_cache::Programs;
use writer::{Recorder, Seen};

/// Its file, below a state directory.
pub fn file_in(state: &Path) -> PathBuf {
    state.join(machine::file_name("audit", ".jsonl"))
}

/// How far the thread may be behind.
const QUEUE: usize = 4096;

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
    /// Which program asked; none where the agent acted by itself, or the program was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// How often the same happened again, and was not written line by line.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeats: u64,
    /// When it last did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct What {
    /// What was asked for, or done.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it was refused or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The cloud's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<String>,
    /// The scope in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Whose tokens they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The lease, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Keystone's `x-openstack-request-id`: of the refusal, or of the request that made the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What was asked for, or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Action {
    /// The agent began to serve.
    Start,
    /// The agent is about to end.
    Stop,
    /// A program asked for a token.
    Token,
    /// A user asked for a sign-in (`ksb login`).
    Login,
    /// A sign-in began, or ended.
    SignIn,
    /// A session was renewed without its user.
    Renewal,
    /// A session was ended and its tokens revoked.
    Logout,
    /// A lease was asked for.
    Lease,
    /// A lease ended.
    LeaseEnd,
    /// A user was asked whether a program may have a token.
    Confirm,
    /// The vault was opened, or its key changed hands.
    Vault,
    /// The agent was locked.
    Lock,
    /// The agent was unlocked.
    Unlock,
    /// A cloud of the current directory was trusted.
    Trust,
    /// Lines could not be written.
    Lost,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As was wanted.
    Done,
    /// A user is needed first: a sign-in was begun, or joined.
    Waits,
    /// It was refused, or failed.
    Refused,
}

impl What {
    /// Something that was done.
    pub fn done(action: Action) -> Self {
        Self {
            action,
            outcome: Outcome::Done,
            code: None,
            cloud: None,
            scope: None,
            user: None,
            lease: None,
            request_id: None,
            detail: None,
        }
    }
}

/// Who it was for.
#[derive(Debug, Clone)]
pub enum Who {
    /// The agent by itself.
    Agent,
    /// Whoever is at the other end, still to be looked up.
    Peer(Peer),
    /// This program, or one that could not be known.
    Program(Option<Arc<Program>>),
}

enum Message {
    Note(Box<(Timestamp, Who, What)>),
    Identify(Peer, oneshot::Sender<Option<Arc<Program>>>),
    Flush(Option<oneshot::Sender<()>>),
}

/// What the thread and those who note have in common.
#[derive(Default)]
struct Health {
    /// Why the file is not complete, until it can be written again.
    problem: Mutex<Option<String>>,
    /// Lines that did not get into it.
    lost: AtomicU64,
    /// Repeats wait to be written.
    pending: Notify,
}

/// The log, open for writing. What is pending is written when it is dropped.
pub struct Log {
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    health: Arc<Health>,
    programs: Arc<Programs>,
    seen: Arc<Seen>,
}

impl Log {
    /// Writes to this file, which is made with the first line.
    pub fn at(path: PathBuf) -> Self {
        let (sender, receiver) = sync_channel(QUEUE);
        let health = Arc::<Health>::default();
        let programs = Arc::<Programs>::default();
        let seen = Arc::<Seen>::default();
        let recorder = Recorder::new(File::at(path), health.clone(), programs.clone(), seen.clone());
        let thread = std::thread::spawn(move || recorder.run(&receiver));
        Self { sender: Some(sender), thread: Some(thread), health, programs, seen }
    }

    /// Notes what happened; returns at once.
    pub fn note(&self, now: Timestamp, who: Who, what: What) {
        let program = match who {
            Who::Agent => Some(None),
            Who::Peer(peer) => self.programs.at_hand(&peer).map(Some),
            Who::Program(ref program) => Some(program.clone()),
        };
        // What is only counted wakes nobody.
        let (what, who) = match program {
            None => (what, who),
            Some(program) => {
                let key = (what, program);
                if self.seen.again(now, &key) {
                    return;
                }
                (key.0, Who::Program(key.1))
            }
        };
        let sent =
            self.sender.as_ref().map(|sender| sender.try_send(Message::Note(Box::new((now, who, what)))));
        if let Some(Err(TrySendError::Full(_))) = sent {
            self.health.fails("more happened at once than could be written");
        }
    }

    /// Looks at the program at the other end while it waits for its answer: it may be gone right after that.
    pub async fn meet(&self, peer: Peer) {
        if !self.programs.knows(&peer) {
            self.identify(peer).await;
        }
    }

    /// The program at the other end, while it is there.
    pub async fn identify(&self, peer: Peer) -> Option<Arc<Program>> {
        let (reply, answer) = oneshot::channel();
        self.sender.as_ref()?.try_send(Message::Identify(peer, reply)).ok()?;
        answer.await.ok().flatten()
    }

    /// Writes how often what was noted has happened again.
    pub fn flush(&self) {
        self.sender.as_ref().map(|sender| sender.try_send(Message::Flush(None)));
    }

    /// The same, and returns when all is written.
    pub async fn flushed(&self) {
        let (reply, answer) = oneshot::channel();
        let sent = self.sender.as_ref().map(|sender| sender.try_send(Message::Flush(Some(reply))));
        if let Some(Ok(())) = sent {
            answer.await.ok();
        }
    }

    /// Returns when there is something to flush.
    pub fn pending(&self) -> impl Future<Output = ()> + Send + use<> {
        let health = self.health.clone();
        async move { health.pending.notified().await }
    }

    /// Why the file is not complete, if it is not.
    pub fn problem(&self) -> Option<String> {
        lock_unpoisoned(&self.health.problem).clone()
    }
}

impl Health {
    /// A line is lost. Says why once.
    fn fails(&self, why: &str) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let mut problem = lock_unpoisoned(&self.problem);
        if problem.is_none() {
            tracing::warn!(why, "the audit log is not complete");
            *problem = Some(why.to_owned());
        }
    }

    /// So many lost lines are told of in the file.
    fn recovers(&self, told: u64) {
        self.lost.fetch_sub(told, Ordering::Relaxed);
        *lock_unpoisoned(&self.problem) = None;
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.sender = None;
        self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other programs read the log, and this one reads what earlier ones wrote.
    #[test]
    fn every_kind_of_line_is_read_and_written_as_ever() {
        for line in include_str!("../tests/formats/audit-log-1.jsonl").lines() {
            let entry: Entry = serde_json::from_str(line).unwrap();
            let written: serde_json::Value = serde_json::to_value(&entry).unwrap();
            assert_eq!(written, serde_json::from_str::<serde_json::Value>(line).unwrap());
        }
    }
}
