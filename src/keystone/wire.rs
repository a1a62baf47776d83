//! What of Keystone's JSON is read. Everything else passes through untouched.

use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
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
pub(super) struct Credentials {
    pub(super) credentials: Vec<Credential>,
}

#[derive(Deserialize)]
pub(super) struct Credential {
    pub(super) blob: String,
}

#[derive(Deserialize)]
pub(super) struct Ec2Blob {
    pub(super) access: String,
}

#[derive(Deserialize)]
pub(super) struct Groups {
    pub(super) groups: Vec<Group>,
}

#[derive(Deserialize)]
pub(super) struct Group {
    pub(super) membership_expires_at: Option<Time>,
}

#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) error: RefusalBody,
}

#[derive(Deserialize)]
pub(super) struct RefusalBody {
    pub(super) code: u16,
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
    pub(super) issued_at: Time,
    pub(super) expires_at: Time,
}

/// A time as a service of OpenStack writes it. Without an offset it is in UTC, as `parse_isotime` and `normalize_time` of
/// oslo.utils and keystoneauth1 have it: so Keystones before 26 wrote the end of an application credential's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) Timestamp);

impl FromStr for Time {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let without_offset =
            || text.parse::<DateTime>()?.to_zoned(TimeZone::UTC).map(|time| time.timestamp());
        text.parse().or_else(|_| without_offset()).map(Self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[derive(Deserialize)]
struct TokenDocument {
    token: TokenBody,
}

#[derive(Deserialize)]
struct TokenBody {
    expires_at: Time,
    issued_at: Time,
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
        expires_at: token.expires_at.0 - wrong,
        issued_at: token.issued_at.0 - ahead,
        user: token.user.user,
        methods: token.methods,
        federation: token.user.federation.map(|from| (from.identity_provider.id, from.protocol.id)),
        request_id: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_an_offset_is_in_utc() {
        let noon = "2026-11-30T12:00:00Z".parse::<Timestamp>().unwrap();
        for text in [
            "2026-11-30T12:00:00Z",
            "2026-11-30T12:00:00.000000Z",
            "2026-11-30T12:00:00+00:00",
            "2026-11-30T12:00:00+0000",
            "2026-11-30T14:00:00.000000+02:00",
            "2026-11-30T12:00:00",
            "2026-11-30T12:00:00.000000",
            "2026-11-30 12:00:00",
            "2026-11-30 12:00:00.000000",
            "2026-11-30 12:00:00+00:00",
            " 2026-11-30T12:00:00 ",
        ] {
            assert_eq!(text.parse::<Time>().map_err(|error| error.to_string()), Ok(Time(noon)), "{text}");
        }
        for text in ["", "never", "12:00:00", "1796040000"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }
}
