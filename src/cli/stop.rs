//! `ksb stop`

use serde_json::json;

use super::target;
use crate::api::{Status, VaultState};
use crate::error::Result;

pub(super) async fn run() -> Result<()> {
    let client = target::client()?;
    if !client.is_running().await {
        println!("No agent is running.");
        return Ok(());
    }
    let status: Status = client.get("/v1/status").await?.json()?;
    client.post_and_part("/v1/stop", &json!({})).await?;
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
