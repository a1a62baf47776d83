//! `ksb stop`

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::target;
use crate::api::{Status, VaultState};
use crate::error::Result;

/// It answers what it was asked before.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run() -> Result<()> {
    let client = target::client()?;
    if !client.is_running().await {
        println!("No agent is running.");
        return Ok(());
    }
    let status: Status = client.get("/v1/status").await?.json()?;
    // Nothing is asked on this connection: its end says that the agent takes no requests any more.
    let idle = UnixStream::connect(&client.paths().socket).await;
    client.post("/v1/stop", &json!({})).await?;
    if let Ok(mut idle) = idle {
        tokio::time::timeout(PATIENCE, idle.read_u8()).await.ok();
    }
    println!("The agent (process {}) has ended.", status.pid);
    if status.sessions.is_empty() {
    } else if status.vault.state == VaultState::Open && status.vault.problem.is_none() {
        println!("{} session(s) are kept in the vault, for the next agent.", status.sessions.len());
    } else {
        println!(
            "{} session(s) are forgotten, but not revoked: their tokens live until they expire. \
             To revoke them next time: ksb logout --all",
            status.sessions.len()
        );
    }
    Ok(())
}
