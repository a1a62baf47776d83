//! Time in a test's hands.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use keystone_broker::platform::clock::SystemClock;
use keystone_broker::time::Clock;
use tokio::sync::watch;

/// A wall clock that stands still until a test moves it.
pub struct ManualClock {
    now: watch::Sender<Timestamp>,
    /// When those who sleep want to be woken.
    alarms: Arc<Mutex<Vec<Timestamp>>>,
}

impl ManualClock {
    /// A clock at an arbitrary, odd moment.
    pub fn new() -> Arc<Self> {
        let start: Timestamp = "2026-03-29T00:59:57.25Z".parse().unwrap();
        Arc::new(Self { now: watch::Sender::new(start), alarms: Arc::default() })
    }

    /// Moves time forward and wakes everybody whose hour has come.
    pub fn advance(&self, seconds: i64) {
        self.now.send_modify(|now| *now += SignedDuration::from_secs(seconds));
    }

    /// Moves time to where the next one wants to be woken, if somebody sleeps for no longer than this.
    pub fn jump(&self, seconds: i64) {
        let now = *self.now.borrow();
        let alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let soon = alarms.into_iter().filter(|when| *when > now).min();
        if let Some(when) = soon.filter(|when| *when <= now + SignedDuration::from_secs(seconds)) {
            self.now.send_replace(when);
        }
    }
}

/// Somebody sleeps.
struct Alarm(Arc<Mutex<Vec<Timestamp>>>, Timestamp);

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut alarms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = alarms.iter().position(|when| *when == self.1) {
            alarms.swap_remove(place);
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, when: Timestamp) -> BoxFuture<'static, ()> {
        let mut now = self.now.subscribe();
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner).push(when);
        let alarm = Alarm(self.alarms.clone(), when);
        Box::pin(async move {
            let _alarm = alarm;
            if now.wait_for(|now| *now >= when).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// The machine's clock, as far off as a test says: for what takes part in the real world.
pub struct MovedClock {
    ahead: watch::Sender<SignedDuration>,
}

impl MovedClock {
    /// One that is right.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { ahead: watch::Sender::new(SignedDuration::ZERO) })
    }

    /// Moves it, and wakes everybody whose hour has come.
    pub fn advance(&self, seconds: i64) {
        self.ahead.send_modify(|ahead| *ahead += SignedDuration::from_secs(seconds));
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + *self.ahead.borrow()
    }

    fn sleep_until(&self, when: Timestamp) -> BoxFuture<'static, ()> {
        let mut ahead = self.ahead.subscribe();
        Box::pin(async move {
            loop {
                let moved = *ahead.borrow_and_update();
                tokio::select! {
                    () = SystemClock.sleep_until(when - moved) => return,
                    changed = ahead.changed() => if changed.is_err() { std::future::pending::<()>().await },
                }
            }
        })
    }
}
