//! What an address tells of a cloud: for `ksb setup`.

use super::Broker;
use crate::api::{DiscoverReply, DiscoverRequest};
use crate::dashboard;
use crate::error::Result;

impl Broker {
    /// Looks at an address, and signs nobody in.
    pub async fn discover(&self, request: &DiscoverRequest) -> Result<DiscoverReply> {
        // An entry that a user named on a command line lies in no directory.
        self.admit(&request.cloud)?;
        dashboard::look(&request.cloud, &self.inner.outbound, request.plain_http).await
    }
}
