//! Single flight: one detached task per key, many waiters.
//!
//! The work runs in its own task, so a caller that dies cancels nothing for the rest.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::Shared;
use tokio::sync::oneshot;

use super::background_tasks::Work;
use crate::error::{Code, Error, Result};
use crate::sync::lock_unpoisoned;

type Landing<V> = Shared<oneshot::Receiver<Result<V>>>;

/// Work under way, by key.
pub(super) struct Flight<K, V> {
    in_flight: Arc<Mutex<HashMap<K, Landing<V>>>>,
    work: Work,
}

impl<K, V> From<&Work> for Flight<K, V> {
    fn from(work: &Work) -> Self {
        Self { in_flight: Arc::default(), work: work.clone() }
    }
}

impl<K, V> Flight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the flight of `key`, or starts `work` as a new one.
    pub(super) async fn join<W>(&self, key: K, work: impl FnOnce() -> W) -> Result<V>
    where
        W: Future<Output = Result<V>> + Send + 'static,
    {
        let landing = {
            let mut in_flight = lock_unpoisoned(&self.in_flight);
            if let Some(landing) = in_flight.get(&key) {
                landing.clone()
            } else {
                let (land, landing) = oneshot::channel();
                let landing = landing.shared();
                in_flight.insert(key.clone(), landing.clone());
                let (work, flights) = (work(), Landed { in_flight: self.in_flight.clone(), key });
                self.work.spawn(async move {
                    let outcome = work.await;
                    // Gone before anyone is told, so that whoever looks next starts anew.
                    drop(flights);
                    let _nobody_waits = land.send(outcome);
                });
                landing
            }
        };
        landing
            .await
            .unwrap_or_else(|_| Err(Error::new(Code::Internal, "the broker's task died; see its log")))
    }
}

/// Takes the flight off the board, also when its task panics.
struct Landed<K: Eq + Hash, V> {
    in_flight: Arc<Mutex<HashMap<K, Landing<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landed<K, V> {
    fn drop(&mut self) {
        lock_unpoisoned(&self.in_flight).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn one_flight_serves_all_and_survives_its_first_caller() {
        let flight = Arc::new(Flight::<u8, usize>::from(&Work::default()));
        let runs = Arc::new(AtomicUsize::new(0));
        let (go, gate) = oneshot::channel::<()>();
        let mut gate = Some(gate);
        let mut callers = Vec::new();
        for _ in 0..50 {
            let (flight, runs, gate) = (flight.clone(), runs.clone(), gate.take());
            callers.push(tokio::spawn(async move {
                flight
                    .join(1, || async move {
                        if let Some(gate) = gate {
                            gate.await.ok();
                        }
                        Ok(runs.fetch_add(1, Ordering::SeqCst) + 1)
                    })
                    .await
            }));
            tokio::task::yield_now().await;
        }
        callers.remove(0).abort();
        go.send(()).unwrap();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), Ok(1));
        }
        assert_eq!(flight.join(1, || async { Ok(7) }).await, Ok(7), "a landed flight is gone");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_the_waiters_and_blocks_nobody() {
        let flight = Flight::<u8, usize>::from(&Work::default());
        let outcome = flight.join(1, || async { panic!("on purpose") }).await;
        assert_eq!(outcome.unwrap_err().code, Code::Internal);
        assert_eq!(flight.join(1, || async { Ok(7) }).await, Ok(7));
    }
}
