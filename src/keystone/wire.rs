//! What of Keystone's JSON is read. Everything else passes through untouched.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::Reach;
use crate::model::{Secret, Token, User};

#[derive(Deserialize)]
pub(super) struct VersionDocument {
    pub(super) version: Version,
}

#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) id: String,
}

#[derive(Deserialize)]
pub(super) struct Projects {
    pub(super) projects: Vec<Reach>,
}

#[derive(Deserialize)]
pub(super) struct Domains {
    pub(super) domains: Vec<Reach>,
}

#[derive(Deserialize)]
pub(super) struct ApplicationCredentials {
    pub(super) application_credentials: Vec<ApplicationCredential>,
}

#[derive(Deserialize)]
pub(super) struct ApplicationCredential {
    pub(super) id: String,
    pub(super) name: String,
}

#[derive(Deserialize)]
pub(super) struct Groups {
    pub(super) groups: Vec<Group>,
}

#[derive(Deserialize)]
pub(super) struct Group {
    pub(super) membership_expires_at: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) error: RefusalBody,
}

#[derive(Deserialize)]
pub(super) struct RefusalBody {
    pub(super) message: String,
}

#[derive(Deserialize)]
pub(super) struct ReceiptDocument {
    pub(super) receipt: ReceiptBody,
    pub(super) required_auth_methods: Vec<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct ReceiptBody {
    pub(super) methods: Vec<String>,
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// A time that Keystone writes without saying that it is in UTC.
pub(super) fn utc(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| format!("{text}Z").parse().ok())
}

#[derive(Deserialize)]
struct TokenDocument {
    token: TokenBody,
}

#[derive(Deserialize)]
struct TokenBody {
    expires_at: Timestamp,
    issued_at: Timestamp,
    user: TokenUser,
    #[serde(default)]
    methods: Vec<String>,
}

#[derive(Deserialize)]
struct TokenUser {
    #[serde(flatten)]
    user: User,
    #[serde(rename = "OS-FEDERATION")]
    federation: Option<Federation>,
}

#[derive(Deserialize)]
struct Federation {
    identity_provider: Id,
    protocol: Id,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

/// A `Date` has whole seconds and was written a moment ago: this much tells nothing of a clock.
const UNCERTAIN: SignedDuration = SignedDuration::from_secs(5);

/// Reads a token's JSON and keeps it byte for byte. `ahead` is how far Keystone's clock is before ours.
pub(super) fn token(id: Secret, body: String, ahead: SignedDuration) -> serde_json::Result<Token> {
    let TokenDocument { token } = serde_json::from_str(&body)?;
    // Where the clocks agree, the end is Keystone's own word and not a second beside it.
    let wrong = if ahead.abs() < UNCERTAIN { SignedDuration::ZERO } else { ahead };
    Ok(Token {
        id,
        body: RawValue::from_string(body)?,
        expires_at: token.expires_at - wrong,
        issued_at: token.issued_at - ahead,
        user: token.user.user,
        methods: token.methods,
        federation: token.user.federation.map(|from| (from.identity_provider.id, from.protocol.id)),
        request_id: None,
    })
}
