//! Opens another socket when the agent's own has lost its name: the last logout removes `/run/user/UID`, and what cleans
//! `/tmp` may remove a socket there. Otherwise the vault would stay locked to an agent that no command reaches.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::timeout;

use super::serve_api;
use super::sockets::{ApiSocket, Sockets};
use crate::broker::Broker;
use crate::error::Result;
use crate::http_server::accept::Server;
use crate::platform::inotify::{Watch, WatchFlags};
use crate::platform::paths::Paths;
use crate::sync::lock_unpoisoned;

/// A program that removes the directory is done by then: a new socket in it would be in its way.
const QUIET: Duration = Duration::from_secs(1);
/// When a new socket is looked for again: a mount above it goes without a word.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// Has the agent listen somewhere for as long as it lives; stops it where that cannot be.
pub(super) async fn keep(broker: &Broker, sockets: &Mutex<Sockets>, servers: &Mutex<Vec<Server>>) {
    let mut again: &[Duration] = &[];
    loop {
        if !lock_unpoisoned(sockets).api.is_ours {
            return;
        }
        until_lost(broker, sockets, again).await;
        let lost = lock_unpoisoned(sockets).api.path();
        if let Err(error) = open_another(broker, sockets, servers).await {
            tracing::error!(%error, lost = %lost.display(), "the socket was removed, and there is no other");
            return broker.stop();
        }
        tracing::info!(lost = %lost.display(), now = %lock_unpoisoned(sockets).api.path().display(), "another socket");
        again = &AGAIN;
    }
}

/// Returns when the socket has lost its name; never if that cannot be watched, as where the system's watches are used up.
async fn until_lost(broker: &Broker, sockets: &Mutex<Sockets>, again: &[Duration]) {
    const KINDS: WatchFlags = WatchFlags::DELETE
        .union(WatchFlags::MOVED_FROM)
        .union(WatchFlags::DELETE_SELF)
        .union(WatchFlags::MOVE_SELF);
    let path = lock_unpoisoned(sockets).api.path();
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return std::future::pending().await;
    };
    let mut changes = match Watch::of(directory, KINDS) {
        Ok(changes) => changes,
        Err(_) if !lock_unpoisoned(sockets).api.has_its_name() => return,
        Err(error) => {
            tracing::warn!(%error, "nothing tells if the socket is removed");
            return std::future::pending().await;
        }
    };
    let mut pauses = again.iter();
    while lock_unpoisoned(sockets).api.has_its_name() {
        match pauses.next() {
            Some(pause) => _ = timeout(*pause, changes.changed(name)).await,
            None => changes.changed(name).await,
        }
    }
    if broker.is_leaving() {
        // It was removed by us. To stop watching now would keep the agent from its last work for some milliseconds.
        return std::future::pending().await;
    }
    while timeout(QUIET, changes.changed(name)).await.is_ok() {}
}

async fn open_another(broker: &Broker, sockets: &Mutex<Sockets>, servers: &Mutex<Vec<Server>>) -> Result<()> {
    let held = lock_unpoisoned(sockets).api.lock.try_clone().ok();
    let api = ApiSocket::open(&Paths::from_env()?, held.as_ref()).await?;
    let server = serve_api(broker, &api)?;
    broker.move_to(&api.directory());
    lock_unpoisoned(servers).push(server);
    lock_unpoisoned(sockets).api = api;
    Ok(())
}
