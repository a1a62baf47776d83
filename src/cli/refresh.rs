//! `ksb refresh`

use super::target;
use crate::api::{CloudRequest, RefreshReply};
use crate::error::Result;

pub(super) async fn run(args: target::CloudArgs) -> Result<()> {
    let resolved = target::resolve(&args, &target::ScopeArgs::default())?;
    let request = CloudRequest { cloud: resolved.cloud };
    let reply: RefreshReply = target::client()?.post("/v1/refresh", &request).await?.json()?;
    let label = request.cloud.label();
    println!("{label}: {} scoped token(s) dropped; the next command gets new ones", reply.dropped);
    Ok(())
}
