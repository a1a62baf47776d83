//! The file beside the socket that says that the agent is locked, also to the next process.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Format;

/// Since when the agent is locked, and what the vault, which is sealed, does not know.
#[derive(Serialize, Deserialize)]
pub struct LockFile {
    /// The format's version.
    #[serde(default)]
    pub version: u32,
    /// When it was locked.
    pub since: Timestamp,
    /// What locked it.
    pub reason: Reason,
    /// Ids of leases that ended since.
    #[serde(default, alias = "over")]
    pub ended_leases: Vec<String>,
    /// Wrong passphrases in a row.
    #[serde(default, alias = "tries")]
    pub unlock_failures: (u32, Timestamp),
}

/// What locked the agent.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The user.
    #[serde(alias = "person")]
    User,
    /// Nothing was asked for.
    Idle,
    /// The screen was locked.
    Screen,
    /// The computer went to sleep.
    Sleep,
}

impl Format for LockFile {
    const VERSION: u32 = 1;
}
