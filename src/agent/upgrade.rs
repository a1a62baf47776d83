//! Hands over to the program that was installed over the agent's own, as soon as it lies there: tools at the facade never
//! ask for that.

use std::time::Duration;

use tokio::time::timeout;

use crate::broker::Broker;
use crate::platform::current_exe;
use crate::platform::inotify::{Watch, WatchFlags};

/// An installer that still writes writes again within this time.
const QUIET: Duration = Duration::from_secs(30);

/// Returns when this process is to leave, or where nothing can be watched.
pub(super) async fn when_replaced(broker: &Broker) {
    let program = current_exe::path();
    // A new file under the name, one that was written to the end, or one that may be executed by now.
    let kinds = WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
    let (Some(directory), Some(name)) = (program.parent(), program.file_name()) else { return };
    let Ok(mut changes) = Watch::of(directory, kinds) else { return };
    loop {
        changes.changed(name).await;
        while timeout(QUIET, changes.changed(name)).await.is_ok() {}
        if !current_exe::was_replaced() {
            continue;
        }
        broker.sign_ins_over().await;
        match broker.hand_over().await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "another program lies here, and cannot take over"),
        }
    }
}
