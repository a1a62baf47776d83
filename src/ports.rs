//! What a test stands between: time, and the person's desktop.
//!
//! Keystone, the IdP and the browser are stood for by real servers in the tests, so the network
//! needs no seam of its own.

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

/// Where a person is told something who looks at no terminal.
pub trait Notices: Send + Sync + 'static {
    /// Tells it, or does not: nothing depends on it.
    fn tell(&self, title: String, text: String) -> BoxFuture<'static, ()>;
    /// Tells it, and opens the address in the desktop's own browser if the person clicks.
    fn ask(&self, title: String, text: String, url: String) -> BoxFuture<'static, ()>;
    /// Asks for a yes or a no, until it is dropped; `None` means that nobody can be asked.
    fn confirm(&self, title: String, text: String) -> BoxFuture<'static, Option<bool>>;
}

/// A clock that is passed around.
pub type SharedClock = Arc<dyn Clock>;
