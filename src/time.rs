//! Wall-clock time, which tests replace.
//!
//! Keystone, identity providers and browsers are real servers and programs in the tests, so that the network needs no
//! trait of its own.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

/// Wall-clock time, for expiry, deadlines and cool-downs. I/O time-outs stay real.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
    /// Returns once the wall clock has reached `when`, also after sleep or a change of the clock.
    fn sleep_until(&self, when: Timestamp) -> BoxFuture<'static, ()>;
}

/// A clock that is passed around.
pub type SharedClock = Arc<dyn Clock>;
