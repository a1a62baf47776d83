//! What confines a lease: a restricted application credential of one project, and beside it an unrestricted one, the
//! reaper, whose only use is to delete both. Without it they would outlive a session that cannot be renewed; with a
//! federated user's membership they would only fall asleep, and come back to life at the next sign-in.
//!
//! Names and secrets are in the vault before Keystone is asked for anything, and the reaper is made first: whatever is
//! cut off when, it can be found and finished. What a vault in memory lost is found by its name.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::lease::{Confined, Credentials, Lease};
use super::{Inner, Minting, NOBODY, policy, sign_in_needed};
use crate::api::S3Key;
use crate::error::{Code, Error, Result};
use crate::keystone::{Keystone, NO_LIFETIME};
use crate::model::{Cloud, Identity, ProjectRef, Scope, Secret, Token, hex, random_hex};
use crate::platform::machine;
use crate::sync::lock_unpoisoned;

impl Inner {
    /// How the names begin of what this agent makes at Keystone: machine and state directory, so that the agents of two homes
    /// leave each other's alone.
    fn own_names(&self) -> String {
        format!("ksb-lease-{}-{}-", machine::name(), self.place())
    }

    /// How the access keys begin of EC2 credentials that this agent makes.
    fn own_access_keys(&self) -> String {
        format!("ksb{}", self.place())
    }

    fn place(&self) -> String {
        let folder = self.vault.folder().display().to_string();
        let place = Sha256::digest(format!("{} {folder}", machine::id().unwrap_or_default()));
        hex(&place[..3])
    }

    /// Makes the credentials of a lease, unless it has some.
    pub(super) async fn confine(self: &Arc<Self>, id: &str) -> Result<()> {
        let (inner, whose) = (self.clone(), id.to_owned());
        let work = || async move { Box::pin(inner.make_credentials(&whose)).await };
        self.confinements.join(id.to_owned(), work).await
    }

    async fn make_credentials(self: Arc<Self>, id: &str) -> Result<()> {
        let found = lock_unpoisoned(&self.state).leases.get(id).map(|lease| {
            let has_some = lease.confined.as_ref().is_some_and(|confined| confined.credentials.is_some());
            (lease.ends_at, has_some)
        });
        let Some((ends_at, false)) = found else { return Ok(()) };
        let Some((cloud, by)) = self.persons_token(id).await? else { return Ok(()) };
        let keystone = self.keystone(&cloud)?;
        let membership = keystone.membership_ends(&by).await?.map(|end| end - policy::CREDENTIAL_MARGIN);
        let now = self.clock.now();
        let wanted = ends_at.unwrap_or(now + policy::CREDENTIAL_LIFE);
        let ends_at = membership.map_or(wanted, |membership| wanted.min(membership));
        if ends_at <= now {
            let why = "the cloud ends your membership of its groups at once, and every application credential with it";
            return Err(Error::new(Code::CredentialsRefused, why).remedy(NO_LIFETIME));
        }
        let credentials = Credentials {
            user_id: by.user.id.clone(),
            name: format!("{}{id}-{}", self.own_names(), random_hex::<2>()),
            worker: Secret::random(),
            reaper: Secret::random(),
            ends_at,
        };
        let project = project_of(&by)?;
        let kept = self.with_lease(id, |lease| {
            // A lease that was made whole stays so.
            if let Some(confined) = &mut lease.confined {
                *confined = Confined { project, credentials: Some(credentials.clone()) };
            }
            if lease.ends_at.is_some_and(|asked| ends_at < asked) {
                let why = "the cloud ends your membership of its groups sooner than asked, and application credentials \
                           with it (authorization_ttl of the identity provider)";
                lease.notice(if lease.unattended { why.to_owned() } else { format!("{why}; a new sign-in makes others") });
            }
        });
        if kept.is_none() {
            return Ok(());
        }
        self.settle().await;
        let expires_at = ends_at + policy::CREDENTIAL_MARGIN;
        let (reaper, worker) = (credentials.reaper_name(), credentials.worker_name());
        let made = async {
            keystone.make_credential(&by, &reaper, &credentials.reaper, true, expires_at).await?;
            keystone.make_credential(&by, &worker, &credentials.worker, false, expires_at).await
        };
        if let Err(error) = made.await {
            self.retire(id).await;
            return Err(error);
        }
        if lock_unpoisoned(&self.state).leases.contains_key(id) {
            self.watch(id);
            self.try_confinement(id, &keystone).await;
        } else {
            // Revoked while Keystone answered: whoever did that may have looked before they were there.
            self.reap(&keystone, &credentials, Some(&by)).await?;
        }
        Ok(())
    }

    /// Looks, by the lease's first token, whether this Keystone keeps its holder to the project, and says so if it does not.
    async fn try_confinement(self: &Arc<Self>, id: &str, keystone: &Keystone) {
        let Ok(Some(token)) = self.mint_confined(id).await else { return };
        let reaches = keystone.reaches_credentials(&token).await;
        let now = self.clock.now();
        self.with_lease(id, |lease| {
            if let Some(Scope::Project(project)) = lease.reaches(None) {
                lease.insert(Scope::Project(project), Arc::new(token), now);
            }
            if matches!(reaches, Ok(true)) {
                lease.notice(
                    "this Keystone does not keep it to the project: its holder can make EC2 credentials that act with all \
                     your roles; ask the operator for the fixes of CVE-2026-43001 and CVE-2026-90460 (27.0.3, 28.0.3, \
                     29.0.3)"
                        .to_owned(),
                );
            }
        });
    }

    /// The user's own token of a lease's project, and the cloud; `None` when the lease was revoked meanwhile.
    async fn persons_token(self: &Arc<Self>, id: &str) -> Result<Option<(Cloud, Token)>> {
        let found = lock_unpoisoned(&self.state)
            .leases
            .get(id)
            .map(|lease| (lease.cloud.clone(), lease.identity.clone(), lease.scope.clone()));
        let Some((cloud, identity, scope)) = found else { return Ok(None) };
        match self.obtain(&cloud, &identity, &scope, 0).await? {
            Minting::Token(held) => Ok(Some((cloud, held.token.clone()))),
            Minting::SignInNeeded => Err(sign_in_needed(&cloud, NOBODY)),
        }
    }

    /// A token by the restricted credential; `None` when it is not there, or not any more.
    pub(super) async fn mint_confined(self: &Arc<Self>, id: &str) -> Result<Option<Token>> {
        let found = lock_unpoisoned(&self.state).leases.get(id).and_then(|lease| {
            let confined = lease.confined.as_ref()?;
            Some((lease.cloud.clone(), confined.credentials.clone()?))
        });
        let Some((cloud, credentials)) = found else { return Ok(None) };
        let keystone = self.keystone(&cloud)?;
        keystone.by_credential(&credentials.user_id, &credentials.worker_name(), &credentials.worker).await
    }

    /// Deletes the credentials of a lease: the restricted one first, the one that does it last. By the user's token
    /// where Keystone does not take the reaper.
    pub(super) async fn reap(
        &self,
        keystone: &Keystone,
        credentials: &Credentials,
        by: Option<&Token>,
    ) -> Result<u32> {
        let reaper = credentials.reaper_name();
        let own = keystone.by_credential(&credentials.user_id, &reaper, &credentials.reaper).await?;
        let Some(by) = own.as_ref().or(by.filter(|by| by.user.id == credentials.user_id)) else {
            let over = credentials.ends_at + policy::CREDENTIAL_MARGIN <= self.clock.now();
            let asleep = "Keystone does not take it now; it is deleted at the next sign-in, if it is there";
            return if over { Ok(0) } else { Err(Error::new(Code::SignInNeeded, asleep)) };
        };
        let mut all = keystone.credentials(by).await?;
        all.retain(|listed| listed.name.starts_with(&credentials.name));
        all.sort_by_key(|listed| listed.name == reaper);
        let mut deleted = 0;
        for listed in all {
            keystone.delete_credential(by, &listed.id).await?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Credentials have to go though their lease may not: with the user there it gets new ones when it is next used.
    pub(super) async fn credentials_end(self: &Arc<Self>, id: &str) {
        let alone = {
            let state = lock_unpoisoned(&self.state);
            let now = self.clock.now();
            state.leases.get(id).map(|lease| {
                let session = state.sessions.get(&lease.identity);
                lease.unattended && !session.is_some_and(|session| session.lives(now, 0))
            })
        };
        match alone {
            Some(false) => self.retire(id).await,
            Some(true) => drop(self.end_lease(id).await),
            None => {}
        }
    }

    /// Takes a lease's credentials back while it lives on: its next use makes others.
    pub(super) async fn retire(self: &Arc<Self>, id: &str) {
        let old = {
            let mut state = lock_unpoisoned(&self.state);
            let Some(old) = state.leases.get_mut(id).and_then(Lease::without_credentials) else { return };
            let by = state.token_of(&old.identity, self.clock.now());
            let old = Arc::new(old);
            state.over.push(old.clone());
            self.changes.note();
            (old, by)
        };
        self.watch(id);
        self.clear_with(vec![old]).await;
    }

    /// Deletes, as the user who has just signed in, what this agent made for leases that it does not know any more.
    pub(super) async fn sweep_as(&self, identity: &Identity) {
        let found = lock_unpoisoned(&self.state).sessions.get(identity).map(|session| {
            let own_token = session.own_token(self.clock.now());
            (session.cloud.clone(), own_token.cloned())
        });
        if let Some((cloud, Some(held))) = found {
            self.sweep(&cloud, &held.token).await;
        }
    }

    /// The same by a token of that user.
    pub(super) async fn sweep(&self, cloud: &Cloud, by: &Token) {
        // The leases that a closed vault knows of live on.
        if self.vault.unopened().is_some() {
            return;
        }
        let Ok(keystone) = self.keystone(cloud) else { return };
        // A cloud without such credentials has none to delete.
        let (listed, ec2) = tokio::join!(keystone.credentials(by), keystone.ec2_access_keys(by));
        let (listed, ec2) = (listed.unwrap_or_default(), ec2.unwrap_or_default());
        let living: Vec<(String, Option<String>)> = {
            let state = lock_unpoisoned(&self.state);
            let known = state.leases.values().chain(state.over.iter().map(|lease| &**lease));
            known.map(|lease| (lease.id.clone(), lease.ec2.clone())).collect()
        };
        let own = self.own_names();
        let is_lost = |name: &str| {
            name.strip_prefix(&own)
                .is_some_and(|rest| !living.iter().any(|(id, _)| rest.starts_with(id.as_str())))
        };
        let mut outcomes = Vec::new();
        for lost in listed.into_iter().filter(|listed| is_lost(&listed.name)) {
            outcomes.push((keystone.delete_credential(by, &lost.id).await, lost.name));
        }
        let own = self.own_access_keys();
        let is_lost = |access: &String| {
            access.starts_with(&own) && !living.iter().any(|(_, ec2)| ec2.as_ref() == Some(access))
        };
        for lost in ec2.into_iter().filter(is_lost) {
            outcomes.push((keystone.delete_ec2(by, &lost).await, lost));
        }
        for (outcome, name) in outcomes {
            if let Err(error) = outcome {
                tracing::warn!(%error, name, "could not be deleted");
            }
        }
    }

    /// An EC2 credential for the lease's project. Its access key is kept before Keystone is asked.
    pub(super) async fn make_s3(self: &Arc<Self>, id: &str) -> Result<S3Key> {
        let found = self.persons_token(id).await?;
        let (cloud, by) =
            found.ok_or_else(|| Error::new(Code::UnknownLease, "the lease was revoked meanwhile"))?;
        let endpoint = s3_endpoint(&by, cloud.region.as_deref()).ok_or_else(|| {
            Error::new(Code::ScopeUnsupported, "the cloud's catalog has no S3 and no object store")
        })?;
        let project = project_of(&by)?.id.unwrap_or_default();
        let (access, secret) =
            (self.own_access_keys() + &random_hex::<12>(), Secret::new(random_hex::<20>()));
        self.with_lease(id, |lease: &mut Lease| lease.ec2 = Some(access.clone()));
        self.settle().await;
        self.keystone(&cloud)?.make_ec2(&by, &project, &access, &secret).await?;
        Ok(S3Key { access, secret, endpoint })
    }
}

/// The project of a token, with everything that may name it.
fn project_of(token: &Token) -> Result<ProjectRef> {
    serde_json::from_str::<Value>(token.body.get())
        .ok()
        .and_then(|mut body| serde_json::from_value(body.pointer_mut("/token/project")?.take()).ok())
        .ok_or_else(|| Error::new(Code::ScopeRefused, "Keystone's token is for no project"))
}

/// The catalog's S3 service, or the root of its object store: both Swift and Ceph answer S3 there.
fn s3_endpoint(token: &Token, region: Option<&str>) -> Option<String> {
    let body: Value = serde_json::from_str(token.body.get()).ok()?;
    let catalog = body.pointer("/token/catalog")?.as_array()?;
    let of = |kind: &str| {
        let services = catalog.iter().filter(|service| service["type"] == kind);
        let mut endpoints = services.filter_map(|service| service["endpoints"].as_array()).flatten();
        let endpoint = endpoints.find(|endpoint| {
            endpoint["interface"] == "public"
                && region.is_none_or(|region| endpoint["region_id"] == region || endpoint["region"] == region)
        })?;
        url::Url::parse(endpoint["url"].as_str()?).ok()
    };
    let root = |url: url::Url| url.origin().ascii_serialization();
    of("s3").map(|url| url.as_str().trim_end_matches('/').to_owned()).or_else(|| of("object-store").map(root))
}
