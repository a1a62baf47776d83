//! `ksb agent stop`

use serde_json::json;

use super::cloud_args;
use crate::api::{Status, VaultState};
use crate::cli::output::outln;
use crate::error::Result;

pub(super) async fn run() -> Result<()> {
    let client = cloud_args::client()?;
    if !client.is_running().await {
        outln!("No agent is running.");
        return Ok(());
    }
    let status: Status = client.get("/v1/status").await?.json()?;
    client.post_and_part("/v1/stop", &json!({})).await?;
    outln!("The agent (process {}) has ended.", status.pid);
    let sessions = status.sessions.len();
    let unrevoked: usize = status.unrevoked.iter().map(|left| left.not_revoked.len()).sum();
    if unrevoked > 0 && !is_kept(&status) {
        outln!(
            "{unrevoked} token(s) that a logout could not revoke are forgotten: they live until they expire."
        );
    }
    if forgets(&status) {
        outln!(
            "{sessions} session(s) are forgotten, but not revoked: their tokens live until they expire. \
             To revoke them next time: ksb logout --all"
        );
    } else if sessions > 0 {
        outln!("{sessions} session(s) are kept in the vault, for the next agent.");
    }
    Ok(())
}

/// Whether somebody is signed in by what the agent's end would lose.
pub(super) fn forgets(status: &Status) -> bool {
    !is_kept(status) && !status.sessions.is_empty()
}

fn is_kept(status: &Status) -> bool {
    status.vault.state == VaultState::Open && status.vault.problem.is_none()
}
