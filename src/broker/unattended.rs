//! Sign-ins that need nobody: who asks for a token waits for them as for any answer.

use super::{Ask, Broker};
use crate::error::Result;
use crate::model::{Cloud, Identity};

impl Broker {
    /// Signs a workload in. Whoever asks meanwhile waits for the same sign-in.
    pub(super) async fn sign_in_unattended(
        &self,
        cloud: &Cloud,
        identity: &Identity,
        switch_user: bool,
    ) -> Result<()> {
        self.pending_or_new(cloud, identity, Ask { switch_user, ..Ask::default() }).await?.over().await
    }
}
