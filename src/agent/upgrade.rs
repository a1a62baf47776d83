//! Hands over to the program that was installed over the agent's own, as soon as it lies there: tools at the facade never
//! ask for that. The kernel tells (inotify(7)), so an idle agent does not wake up.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::platform::own;

/// An installer that still writes writes again within this time.
const QUIET: Duration = Duration::from_secs(30);

/// Returns when this process is to leave, or where nothing can be watched.
pub(super) async fn when_replaced(broker: &Broker) {
    let program = own::path();
    let Some(mut changes) = program.parent().and_then(|directory| Changes::of(directory).ok()) else {
        return;
    };
    loop {
        changes.next().await;
        while timeout(QUIET, changes.next()).await.is_ok() {}
        if !own::was_replaced() {
            continue;
        }
        broker.sign_ins_over().await;
        match broker.hand_over().await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "another program lies here, and cannot take over"),
        }
    }
}

/// Changes of what lies in a directory.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn of(directory: &Path) -> std::io::Result<Self> {
        let kernel = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // A new file under the name, one that was written to the end, or one that may be executed by now.
        let what = WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        inotify::add_watch(&kernel, directory, what)?;
        #[expect(
            deprecated,
            reason = "deprecated for descriptors that are not owned; this one is, and `register` is unsafe"
        )]
        AsyncFd::with_interest(kernel, Interest::READABLE).map(Self)
    }

    /// Returns after the next ones; never once the kernel tells nothing more.
    async fn next(&mut self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            match rustix::io::read(ready.get_inner(), &mut [0; 4096]) {
                Ok(_) => return,
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(_) => return std::future::pending().await,
            }
        }
    }
}
