//! Kills the real agent at every step of what it does, and looks at what is left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use super::desk::Desk;
use super::keystone::When;

/// Where the agent died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// At this request of its own.
    Request(String, When),
    /// As soon as it had saved the vault so often.
    Saved(usize),
}

/// What was answered before it did.
pub struct Answered<T>(Mutex<Vec<T>>);

impl<T> Answered<T> {
    /// Notes that a caller was told so.
    pub fn note(&self, fact: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fact);
    }
}

/// Does `deed` after `prepare` again and again, and kills the agent at each of its requests, before and after it is done, and
/// after each save, until the deed is over before there is another one. Then `check` looks at what is left, with what the
/// deed had been answered. A deed whose agent is killed may panic.
pub fn at_every_step<T: Send>(
    desk: &Desk,
    prepare: impl Fn(),
    deed: impl Fn(&Answered<T>) + Sync,
    check: impl Fn(&Step, Vec<T>),
) {
    let mut steps = Vec::new();
    let mut look = |step, answered| {
        check(&step, answered);
        steps.push(step);
    };
    for when in [When::Before, When::Done] {
        for after in 0.. {
            prepare();
            desk.keystone.hold(after, when);
            let (killed, answered) = kill_when(desk, &deed, || {
                // What is held stays so, and who is waited for needs the processor.
                std::thread::park_timeout(Duration::from_millis(1));
                desk.keystone.held()
            });
            desk.keystone.let_go();
            let Some(request) = killed else { break };
            look(Step::Request(request, when), answered);
        }
    }
    for saves in 1.. {
        prepare();
        let file = vault(desk);
        let (mut newest, mut seen) = (inode(&file), 0);
        let (killed, answered) = kill_when(desk, &deed, || {
            let now = inode(&file);
            seen += usize::from(now != newest);
            newest = now;
            (seen == saves).then_some(())
        });
        if killed.is_none() {
            break;
        }
        look(Step::Saved(saves), answered);
    }
    println!("killed at {steps:?}");
    assert!(steps.len() > 2, "{steps:?}");
}

/// The same at every word of the agent's log instead: for what asks nobody and saves nothing.
pub fn at_every_word<T: Send>(
    desk: &Desk,
    prepare: impl Fn(),
    deed: impl Fn(&Answered<T>) + Sync,
    check: impl Fn(usize, Vec<T>),
) {
    for words in 1.. {
        prepare();
        let said = || desk.sandbox.agent_log().lines().count();
        let before = said();
        let (killed, answered) = kill_when(desk, &deed, || (said() >= before + words).then_some(()));
        if killed.is_none() {
            println!("killed at each of {} words", words - 1);
            assert!(words > 2);
            return;
        }
        check(words, answered);
    }
}

/// Kills the agent when `is_due` says so; nothing when the deed was over before.
fn kill_when<T: Send, D>(
    desk: &Desk,
    deed: impl Fn(&Answered<T>) + Sync,
    mut is_due: impl FnMut() -> Option<D>,
) -> (Option<D>, Vec<T>) {
    let answered = Answered(Mutex::default());
    let killed = std::thread::scope(|threads| {
        let doing: ScopedJoinHandle<'_, ()> = threads.spawn(|| deed(&answered));
        loop {
            if let Some(due) = is_due() {
                desk.sandbox.kill_agent();
                // It was cut off.
                doing.join().ok();
                return Some(due);
            }
            if doing.is_finished() {
                doing.join().expect("nobody was killed");
                return None;
            }
            std::thread::yield_now();
        }
    });
    (killed, answered.0.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn vault(desk: &Desk) -> PathBuf {
    let folder = desk.sandbox.paths().state;
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
    files.into_iter().find(|file| name(file).starts_with("vault-") && !name(file).contains('.')).unwrap()
}

/// A file that was replaced is another one.
fn inode(file: &PathBuf) -> u64 {
    fs::metadata(file).map_or(0, |found| found.ino())
}
