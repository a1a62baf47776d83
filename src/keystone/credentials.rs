//! Application credentials (Identity API v3, "Application Credentials") and EC2 credentials ("Credentials") of the user.
//!
//! Keystone takes a secret that the client has chosen. So both are made with secrets that are known, and kept, before
//! Keystone is asked: whatever is cut off when, they can be found again and deleted.

use jiff::{SignedDuration, Timestamp, Unit};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Keystone, authenticated, own_words, wire};
use crate::error::{Code, Error, Result};
use crate::http_client::Answer;
use crate::model::{Secret, Token, hex};

/// What helps where roles come with a federated sign-in's groups: without a lifetime they are nobody's own.
pub const NO_LIFETIME: &str = "ask the operator for an authorization_ttl of the identity provider (openstack identity provider \
                               set --authorization-ttl MINUTES)";

/// An application credential as the list has it.
pub struct Listed {
    /// Keystone's id.
    pub id: String,
    /// The name, which is unique for the user.
    pub name: String,
}

impl Keystone {
    /// A token by an application credential, found by its owner and name; `None` when Keystone does not take it: it was
    /// never made, is deleted or over, or its owner has lost the project.
    pub async fn by_credential(&self, user_id: &str, name: &str, secret: &Secret) -> Result<Option<Token>> {
        let body = json!({"auth": {"identity": {
            "methods": ["application_credential"],
            "application_credential": {"name": name, "secret": secret.expose(), "user": {"id": user_id}},
        }}});
        let request = self.request(Method::POST, "/auth/tokens").header("Content-Type", "application/json");
        let answer = self.send_patiently(request.body(body.to_string())).await?;
        match answer.status {
            201 => {
                let id = self.subject(&answer)?;
                self.token(id, answer).map(Some)
            }
            401 | 403 | 404 if own_words(&answer).is_some() => Ok(None),
            _ => Err(self.refusal(&answer, Code::KeystoneError)),
        }
    }

    /// Makes an application credential for the project of `by`, with all roles that `by` has there.
    pub async fn make_credential(
        &self,
        by: &Token,
        name: &str,
        secret: &Secret,
        unrestricted: bool,
        ends: Timestamp,
    ) -> Result<()> {
        let body = json!({"application_credential": {
            "name": name,
            "description": "made by keystone-broker (ksb) for a lease; deleted at its end",
            "secret": secret.expose(),
            "unrestricted": unrestricted,
            "expires_at": theirs(ends, by),
        }});
        let path = format!("/users/{}/application_credentials", by.user.id);
        let answer = self.post(by, &path, &body).await?;
        if answer.status == 201 {
            return Ok(());
        }
        Err(self.refused(&answer, "application credentials"))
    }

    /// The user's application credentials.
    pub async fn credentials(&self, by: &Token) -> Result<Vec<Listed>> {
        let path = format!("/users/{}/application_credentials", by.user.id);
        let found: wire::ApplicationCredentials = self.get_json(by, &path).await?;
        let listed = found.application_credentials.into_iter();
        Ok(listed.map(|found| Listed { id: found.id, name: found.name }).collect())
    }

    /// Deletes an application credential. One that is not there any more counts as deleted.
    pub async fn delete_credential(&self, by: &Token, id: &str) -> Result<()> {
        self.delete(by, &format!("/users/{}/application_credentials/{id}", by.user.id)).await
    }

    /// When the first of the user's memberships of a group ends that a sign-in gave for a time (`authorization_ttl` of
    /// the identity provider), by our clock. With it go the roles, and with them every application credential.
    pub async fn membership_ends(&self, by: &Token) -> Result<Option<Timestamp>> {
        let found: wire::Groups = self.get_json(by, &format!("/users/{}/groups", by.user.id)).await?;
        let ends = found.groups.iter().filter_map(|group| group.membership_expires_at);
        Ok(ends.min().map(|ends| ends.0 - ahead(by)))
    }

    /// Makes an EC2 credential for a project.
    pub async fn make_ec2(&self, by: &Token, project: &str, access: &str, secret: &Secret) -> Result<()> {
        let blob = json!({"access": access, "secret": secret.expose()}).to_string();
        let body = json!({"credential": {
            "type": "ec2", "user_id": by.user.id, "project_id": project, "blob": blob,
        }});
        let answer = self.post(by, "/credentials", &body).await?;
        if answer.status == 201 { Ok(()) } else { Err(self.refused(&answer, "EC2 credentials")) }
    }

    /// The access keys of the user's EC2 credentials.
    pub async fn ec2_access_keys(&self, by: &Token) -> Result<Vec<String>> {
        let path = format!("/credentials?type=ec2&user_id={}", by.user.id);
        let found: wire::Credentials = self.get_json(by, &path).await?;
        // The blob is whatever was put there.
        let access_key =
            |blob: &str| serde_json::from_str::<wire::Ec2Blob>(blob).ok().map(|blob| blob.access);
        Ok(found.credentials.iter().filter_map(|credential| access_key(&credential.blob)).collect())
    }

    /// Whether a token that is to reach one project only may read its user's EC2 credentials. Keystone has refused that since
    /// 27.0.3, 28.0.3 and 29.0.3 (CVE-2026-90460), which also keep it from making and changing them.
    pub async fn reaches_credentials(&self, by: &Token) -> Result<bool> {
        let path = format!("/users/{}/credentials/OS-EC2", by.user.id);
        let answer = self.send(authenticated(self.request(Method::GET, &path), &by.id)).await?;
        Ok(answer.status == 200)
    }

    /// Deletes an EC2 credential, which has the digest of its access key for an id.
    pub async fn delete_ec2(&self, by: &Token, access: &str) -> Result<()> {
        self.delete(by, &format!("/credentials/{}", hex(&Sha256::digest(access)))).await
    }

    async fn post(&self, by: &Token, path: &str, body: &Value) -> Result<Answer> {
        let request = self.request(Method::POST, path).header("Content-Type", "application/json");
        self.send(authenticated(request, &by.id).body(body.to_string())).await
    }

    async fn delete(&self, by: &Token, path: &str) -> Result<()> {
        let answer = self.send(authenticated(self.request(Method::DELETE, path), &by.id)).await?;
        match answer.status {
            204 => Ok(()),
            404 if own_words(&answer).is_some() => Ok(()),
            _ => Err(self.refusal(&answer, Code::KeystoneError)),
        }
    }

    /// Why a cloud does not let its users make credentials, as far as its answer tells.
    fn refused(&self, answer: &Answer, what: &str) -> Error {
        let error = self.refusal(answer, Code::CredentialsRefused);
        if error.code != Code::CredentialsRefused {
            return error;
        }
        let ask = match answer.status {
            // 27.0.0: its schema of `POST /v3/credentials`.
            400 if error.detail.contains("'uuid'") => {
                "ask the operator for a newer Keystone: this one takes no federated user's id there"
            }
            400 | 404 => NO_LIFETIME,
            403 if error.detail.contains("imit") => "delete some: openstack application credential list",
            403 => "ask the operator to allow users to make them for themselves (policy.yaml)",
            _ => return self.refusal(answer, Code::KeystoneError),
        };
        let detail = format!("the cloud does not let you make {what} ({})", error.detail);
        Error { detail, ..error }.remedy(ask)
    }
}

/// How far Keystone's clock is before ours, as its token shows: it has both ends.
fn ahead(token: &Token) -> SignedDuration {
    let theirs = serde_json::from_str::<Value>(token.body.get()).ok().and_then(|body| {
        let ends = body.pointer("/token/expires_at")?.as_str()?;
        ends.parse::<wire::Time>().ok()
    });
    theirs.map_or(SignedDuration::ZERO, |theirs| theirs.0.duration_since(token.expires_at))
}

/// A time of ours as Keystone's API takes it: by its clock, whole seconds, without a zone.
fn theirs(ours: Timestamp, by: &Token) -> String {
    let there = ours + ahead(by);
    there.round(Unit::Second).unwrap_or(there).strftime("%Y-%m-%dT%H:%M:%S").to_string()
}
