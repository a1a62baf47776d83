//! The thread that writes: what happens again and again takes one line now and one later.

use crate::error::reason;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use super::program_cache::Programs;
use super::{Action, Entry, File, Health, Message, Outcome, What, Who};
use crate::platform::peer_program::Program;
use crate::sync::lock_unpoisoned;

/// More than a user has programs, clouds and scopes.
const MOST: usize = 1024;

/// What was written, by whom it was wanted, and how often it has happened since.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<Key, Repeats>>);

type Key = (What, Option<Arc<Program>>);

struct Repeats {
    times: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Seen {
    /// Counts it, if it is written already.
    pub(super) fn again(&self, now: Timestamp, key: &Key) -> bool {
        let mut all = lock_unpoisoned(&self.0);
        let Some(repeats) = all.get_mut(key) else { return false };
        if repeats.times == 0 {
            repeats.first = now;
        }
        repeats.times += 1;
        repeats.last = now;
        true
    }
}

pub(super) struct Recorder {
    file: File,
    health: Arc<Health>,
    programs: Arc<Programs>,
    seen: Arc<Seen>,
}

impl Recorder {
    pub(super) fn new(file: File, health: Arc<Health>, programs: Arc<Programs>, seen: Arc<Seen>) -> Self {
        Self { file, health, programs, seen }
    }

    /// Until nobody is left who could note anything.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Note(note) => {
                    let (now, who, what) = *note;
                    let program = match who {
                        Who::Agent => None,
                        Who::Peer(peer) => self.programs.find(&peer),
                        Who::Program(program) => program,
                    };
                    self.note(now, what, program);
                }
                Message::Identify(peer, reply) => {
                    reply.send(self.programs.find(&peer)).ok();
                }
                Message::Flush(reply) => {
                    self.flush();
                    reply.map(|reply| reply.send(()));
                }
            }
        }
        self.flush();
    }

    /// The first time at once.
    fn note(&mut self, now: Timestamp, what: What, program: Option<Arc<Program>>) {
        let key = (what, program);
        if self.seen.again(now, &key) {
            return;
        }
        if lock_unpoisoned(&self.seen.0).len() == MOST {
            self.flush();
            lock_unpoisoned(&self.seen.0).clear();
        }
        let (what, program) = &key;
        self.write(&Entry {
            time: now,
            what: what.clone(),
            program: program.as_deref().cloned(),
            repeats: 0,
            last: None,
        });
        let mut seen = lock_unpoisoned(&self.seen.0);
        if seen.is_empty() {
            self.health.pending.notify_one();
        }
        seen.insert(key, Repeats { times: 0, first: now, last: now });
    }

    /// Writes how often the same has happened since, and forgets what has not.
    fn flush(&mut self) {
        let seen = std::mem::take(&mut *lock_unpoisoned(&self.seen.0));
        for ((what, program), repeats) in seen {
            if repeats.times == 0 {
                continue;
            }
            self.write(&Entry {
                time: repeats.first,
                what: what.clone(),
                program: program.as_deref().cloned(),
                repeats: repeats.times,
                last: Some(repeats.last),
            });
            lock_unpoisoned(&self.seen.0).insert((what, program), Repeats { times: 0, ..repeats });
        }
        if !lock_unpoisoned(&self.seen.0).is_empty() {
            self.health.pending.notify_one();
        }
    }

    fn write(&mut self, entry: &Entry) {
        let lost = self.health.lost.load(Ordering::Relaxed);
        let written = match lost {
            0 => self.file.append(entry),
            // Alone the shorter line would find its room on a disk that is as full as before.
            lost => self
                .file
                .append_all(&[&gap(lost, entry.time), entry])
                .inspect(|()| self.health.recovers(lost)),
        };
        if let Err(error) = written {
            self.health.fails(&reason(&error));
        }
    }
}

/// What stands where lines are missing.
fn gap(lost: u64, time: Timestamp) -> Entry {
    let detail = Some(format!("{lost} lines before this one could not be written"));
    let what = What { outcome: Outcome::Refused, detail, ..What::done(Action::Lost) };
    Entry { time, what, program: None, repeats: 0, last: None }
}
