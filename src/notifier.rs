//! Notifications on the user's desktop, which tests replace.

use futures_util::future::BoxFuture;

/// Where a user is told something who looks at no terminal.
pub trait Notices: Send + Sync + 'static {
    /// Tells it, or does not: nothing depends on it.
    fn tell(&self, title: String, text: String) -> BoxFuture<'static, ()>;
    /// Tells it, and opens the address in the desktop's own browser if the user clicks.
    fn ask(&self, title: String, text: String, url: String) -> BoxFuture<'static, ()>;
    /// Asks for a yes or a no, until it is dropped; `None` means that nobody can be asked.
    fn confirm(&self, title: String, text: String) -> BoxFuture<'static, Option<bool>>;
}
