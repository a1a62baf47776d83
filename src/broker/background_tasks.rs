//! Work that belongs to no caller, and that the process must not leave in the middle: a refresh token that is being used
//! up, credentials that are being deleted.

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The work under way. Cheap to clone.
#[derive(Clone)]
pub(super) struct Work {
    /// Each piece of work holds a receiver.
    running: watch::Sender<()>,
}

impl Default for Work {
    fn default() -> Self {
        Self { running: watch::Sender::new(()) }
    }
}

impl Work {
    /// Does it in a task of its own.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let running = self.running.subscribe();
        tokio::spawn(async move {
            let outcome = work.await;
            drop(running);
            outcome
        })
    }

    /// Returns when none is under way.
    pub(super) async fn done(&self) {
        self.running.closed().await;
    }
}
