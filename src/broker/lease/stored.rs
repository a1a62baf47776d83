//! A lease as the vault has it.

use std::collections::HashMap;

use super::{Confined, Credentials, Lease, Minted};
use crate::formats::vault_contents::{StoredConfinement, StoredCredentials, StoredLease, StoredProcess};
use crate::model::Identity;
use crate::platform::process::Process;

impl Lease {
    /// Its stored form: the bodies of its tokens can be had again.
    pub(in crate::broker) fn store(&self) -> StoredLease {
        StoredLease {
            id: self.id.clone(),
            name: self.name.clone(),
            secret_digest: self.digest,
            cloud: self.cloud.clone().into(),
            identity: self.identity.bytes(),
            scope: self.scope.clone().into(),
            prompt: self.prompt,
            remote: self.remote,
            process: self.process.clone().map(Into::into),
            made_at: self.made_at,
            ends_at: self.ends_at,
            last_used_at: self.used_at,
            user: self.user.clone().map(Into::into),
            unattended: self.unattended,
            confirm: self.confirm,
            confined: self.confined.clone().map(Into::into),
            ec2: self.ec2.clone(),
            notices: self.notices.clone(),
            issued_tokens: self.minted.iter().map(Minted::store).collect(),
        }
    }
}

impl From<StoredLease> for Lease {
    fn from(stored: StoredLease) -> Self {
        Self {
            id: stored.id,
            name: stored.name,
            digest: stored.secret_digest,
            cloud: stored.cloud.into(),
            identity: Identity::from_bytes(stored.identity),
            scope: stored.scope.into(),
            prompt: stored.prompt,
            remote: stored.remote,
            process: stored.process.map(Into::into),
            made_at: stored.made_at,
            ends_at: stored.ends_at,
            used_at: stored.last_used_at,
            user: stored.user.map(Into::into),
            unattended: stored.unattended,
            confirm: stored.confirm,
            confined: stored.confined.map(Into::into),
            ec2: stored.ec2,
            notices: stored.notices,
            tokens: HashMap::new(),
            minted: stored.issued_tokens.into_iter().map(Into::into).collect(),
            watch: None,
        }
    }
}

impl From<Process> for StoredProcess {
    fn from(Process { pid, started, boot }: Process) -> Self {
        Self { pid, started, boot }
    }
}

impl From<StoredProcess> for Process {
    fn from(StoredProcess { pid, started, boot }: StoredProcess) -> Self {
        Self { pid, started, boot }
    }
}

impl From<Confined> for StoredConfinement {
    fn from(Confined { project, credentials }: Confined) -> Self {
        Self { project: project.into(), credentials: credentials.map(Into::into) }
    }
}

impl From<StoredConfinement> for Confined {
    fn from(StoredConfinement { project, credentials }: StoredConfinement) -> Self {
        Self { project: project.into(), credentials: credentials.map(Into::into) }
    }
}

impl From<Credentials> for StoredCredentials {
    fn from(Credentials { user_id, name, worker, reaper, ends_at }: Credentials) -> Self {
        Self { user_id, name, restricted_secret: worker, unrestricted_secret: reaper, ends_at }
    }
}

impl From<StoredCredentials> for Credentials {
    fn from(stored: StoredCredentials) -> Self {
        let StoredCredentials { user_id, name, restricted_secret, unrestricted_secret, ends_at } = stored;
        Self { user_id, name, worker: restricted_secret, reaper: unrestricted_secret, ends_at }
    }
}
