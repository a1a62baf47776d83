//! The programs that were looked at, so that a look is taken once for each: it costs more than all the rest.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::platform::peer_program::{Peer, Program, Pulse, since_boot};
use crate::sync::lock_unpoisoned;

/// More than a user runs at a time.
const MOST: usize = 1024;
/// A program has fewer connections at a time.
const SURE: usize = 128;
/// More are not looked at before all others are.
const LIKELY: usize = 4;

#[derive(Default)]
pub(super) struct Programs(Mutex<HashMap<u32, Known>>);

struct Known {
    program: Arc<Program>,
    pulse: Pulse,
    /// When it was looked at, so long after the boot.
    seen: Duration,
    /// The latest connections, by their times, for which it was made sure that the process is still this program: what is
    /// executed in its place (execve(2)) makes connections of its own.
    sure: VecDeque<Duration>,
}

impl Known {
    /// Whether this was the process of its number at that time: it had started, and it lived when it was looked at later,
    /// or lives.
    fn was_there(&self, when: Duration) -> bool {
        self.program.had_started(when) && (when <= self.seen || self.pulse.beats())
    }

    fn is_sure_of(&mut self, connection: Duration) {
        if self.sure.contains(&connection) {
            return;
        }
        if self.sure.len() == SURE {
            self.sure.pop_front();
        }
        self.sure.push_back(connection);
    }
}

impl Programs {
    /// Whether the program at the other end can be told also when it is gone. Costs next to nothing.
    pub(super) fn knows(&self, peer: &Peer) -> bool {
        let Peer::Process { pid, since } = peer else { return false };
        lock_unpoisoned(&self.0).get(pid).is_some_and(|known| known.was_there(*since))
    }

    /// The program at the other end of a connection that was looked at already. Costs next to nothing.
    pub(super) fn at_hand(&self, peer: &Peer) -> Option<Arc<Program>> {
        let Peer::Process { pid, since } = peer else { return None };
        let all = lock_unpoisoned(&self.0);
        all.get(pid).filter(|known| known.sure.contains(since)).map(|known| known.program.clone())
    }

    /// Who makes one TCP connection makes more.
    fn likely(&self, peer: &Peer) -> Vec<u32> {
        if !matches!(peer, Peer::Socket { .. }) {
            return Vec::new();
        }
        let all = lock_unpoisoned(&self.0);
        let mut living: Vec<_> = all.iter().filter(|(_, known)| known.pulse.beats()).collect();
        living.sort_by_key(|(_, known)| Reverse(known.seen));
        living.into_iter().take(LIKELY).map(|(pid, _)| *pid).collect()
    }

    /// The program at the other end; `None` when it is gone and was not looked at before.
    pub(super) fn find(&self, peer: &Peer) -> Option<Arc<Program>> {
        if let Peer::Process { pid, since } = peer
            && let Some(known) = lock_unpoisoned(&self.0).get_mut(pid)
            && known.was_there(*since)
            && (known.sure.contains(since) || known.program.still_runs() || !known.pulse.beats())
        {
            known.is_sure_of(*since);
            return Some(known.program.clone());
        }
        let seen = since_boot();
        let program = Arc::new(Program::of(peer, &self.likely(peer))?);
        if let Some(pulse) = Pulse::of(&program) {
            let mut all = lock_unpoisoned(&self.0);
            if all.len() >= MOST {
                all.retain(|_, known| known.pulse.beats());
            }
            if all.len() < MOST {
                let mut known = Known { program: program.clone(), pulse, seen, sure: VecDeque::new() };
                if let Peer::Process { since, .. } = peer {
                    known.is_sure_of(*since);
                }
                all.insert(program.pid, known);
            }
        }
        Some(program)
    }
}
