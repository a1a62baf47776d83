//! `ksb trust`, and the question that other commands ask before they use a stranger's clouds.yaml.

use super::cloud_args;
use super::terminal::Keys;
use crate::api::CloudRequest;
use crate::cli::output::{errln, outln};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::model::Cloud;

pub(super) async fn run(args: cloud_args::CloudArgs) -> Result<()> {
    let resolved = cloud_args::resolve_unscoped(&args)?;
    let cloud = resolved.cloud;
    cloud_args::client()?.post("/v1/trust", &CloudRequest { cloud: cloud.clone() }).await?;
    outln!("{}: {} is trusted", cloud.label(), cloud.auth_url);
    Ok(())
}

/// Asks the user at the terminal; without one, or after a no, fails with `refusal`.
pub(super) async fn ask(client: &Client, cloud: &Cloud, refusal: Error) -> Result<()> {
    let Some(mut keys) = Keys::open() else { return Err(refusal) };
    errln!("ksb: {}: {}", cloud.label(), refusal.detail);
    if !keys.confirm("Sign in there?").await {
        return Err(refusal);
    }
    client.post("/v1/trust", &CloudRequest { cloud: cloud.clone() }).await?;
    Ok(())
}
