//! `ksb lock`

use super::{logout, target};
use crate::api::{LockReply, LockRequest, Status};
use crate::error::Result;

pub(super) async fn run() -> Result<()> {
    let client = target::client()?;
    let presence = client.presence().await;
    let reply: LockReply = client.post("/v1/lock", &LockRequest {}).await?.json()?;
    if reply.restarts {
        presence.end().await;
        // A fresh process answers, which knows nothing.
        client.get("/v1/status").await?.json::<Status>()?;
    }
    println!("Locked. Nothing is given out until: ksb unlock");
    if let Some(logged_out) = &reply.logged_out {
        println!("There is no vault that sign-ins could be sealed in, so they have ended:");
        logout::show(logged_out);
    }
    for (count, what) in [(reply.paused, "paused"), (reply.through, "go on (--through-lock)")] {
        if count > 0 {
            println!("leases {what}: {count}");
        }
    }
    Ok(())
}
