//! Failures that the caller, or the user at the terminal, can put right at once.

use crate::cli::sign_in::token_command;
use crate::cli::{trust, unlock};
use crate::client::Client;
use crate::error::{Code, Error, Result};
use crate::model::Cloud;

/// Asks the user, or runs what the entry says; the failure stays one where that does not help.
pub(in crate::cli) async fn ask(client: &Client, cloud: &mut Cloud, error: Error) -> Result<()> {
    match error.code {
        Code::BearerNeeded => token_command::fetch(cloud).await,
        Code::CloudNotTrusted => trust::ask(client, cloud, error).await,
        Code::VaultSealed => unlock::ask(client, error).await,
        _ => Err(error),
    }
}
