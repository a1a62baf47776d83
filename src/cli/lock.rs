//! `ksb lock`

use std::time::Duration;

use tokio::time::timeout;

use super::{cloud_args, logout};
use crate::api::{LockReply, LockRequest, Status};
use crate::cli::output::outln;
use crate::error::Result;

/// For the agent to make room for a process that knows nothing.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run() -> Result<()> {
    let client = cloud_args::client()?;
    let presence = client.presence().await;
    let reply: LockReply = client.post("/v1/lock", &LockRequest {}).await?.json()?;
    if reply.restarts {
        // It is locked by now; what a server has still to answer holds its process up, not us.
        timeout(PATIENCE, presence.end()).await.ok();
        // A fresh process answers, which knows nothing.
        client.get("/v1/status").await?.json::<Status>()?;
    }
    outln!("Locked. Nothing is given out until: ksb unlock");
    if let Some(logged_out) = &reply.logged_out {
        outln!("There is no vault that sign-ins could be sealed in, so they have ended:");
        logout::show(logged_out);
    }
    for (count, what) in [(reply.paused, "paused"), (reply.through, "go on (--unattended)")] {
        if count > 0 {
            outln!("leases {what}: {count}");
        }
    }
    Ok(())
}
