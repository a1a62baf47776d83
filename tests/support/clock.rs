//! Time in a test's hands.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use keystone_broker::ports::Clock;
use tokio::sync::watch;

/// A wall clock that stands still until a test moves it.
pub struct ManualClock {
    now: watch::Sender<Timestamp>,
}

impl ManualClock {
    /// A clock at an arbitrary, odd moment.
    pub fn new() -> Arc<Self> {
        let start: Timestamp = "2026-03-29T00:59:57.25Z".parse().unwrap();
        Arc::new(Self { now: watch::Sender::new(start) })
    }

    /// Moves time forward and wakes everybody whose hour has come.
    pub fn advance(&self, seconds: i64) {
        self.now.send_modify(|now| *now += SignedDuration::from_secs(seconds));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, when: Timestamp) -> BoxFuture<'static, ()> {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            if now.wait_for(|now| *now >= when).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}
