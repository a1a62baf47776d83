//! The ID token: held up to the provider's keys, and what it shows of the sign-in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use jiff::{SignedDuration, Timestamp};
use openidconnect::core::{CoreIdToken, CoreTokenResponse};
use openidconnect::{AccessTokenHash, ClaimsVerificationError, Nonce, OAuth2TokenResponse};
use serde::Deserialize;

use super::{Provider, date_time, failed};
use crate::error::{Code, Error, Result};
use crate::model::Evidence;

/// What two clocks may differ by, also where a provider's token ends with the second that it is given out in (OpenID
/// Connect Core 1.0, section 3.1.3.7, item 9).
const LEEWAY: TimeDelta = TimeDelta::seconds(30);

impl Provider {
    /// Verifies it (OpenID Connect Core 1.0, section 3.1.3.7; `at_hash`, section 3.1.3.8). A renewed one has no nonce to
    /// compare.
    pub(super) fn evidence(
        &self,
        response: &CoreTokenResponse,
        id_token: &CoreIdToken,
        nonce: Option<&Nonce>,
    ) -> Result<Evidence> {
        let client = self.configured();
        let clock = self.clock.clone();
        let verifier = client.id_token_verifier().set_time_fn(move || date_time(&clock) - LEEWAY);
        // A renewed ID token need not repeat the nonce (OpenID Connect Core 1.0, section 12.2).
        let same = |said: Option<&Nonce>| match (nonce, said) {
            (Some(sent), Some(said)) if sent.secret() == said.secret() => Ok(()),
            (Some(_), _) => Err("the nonce is not ours".to_owned()),
            (None, _) => Ok(()),
        };
        let bad = |why: String| failed(&self.at, format!("its ID token is not valid: {why}"));
        let ahead = self.heard.ahead(issued_at(id_token), self.clock.now());
        let claims = id_token.claims(&verifier, same).map_err(|error| match (&error, ahead) {
            (ClaimsVerificationError::Expired(_), Some(ahead)) => self.wrong_clock(ahead),
            _ => bad(error.to_string()),
        })?;
        if let Some(expected) = claims.access_token_hash() {
            let found = id_token
                .signing_alg()
                .and_then(|alg| Ok((alg, id_token.signing_key(&verifier)?)))
                .map_err(|error| bad(error.to_string()))
                .and_then(|(alg, key)| {
                    AccessTokenHash::from_token(response.access_token(), alg, key)
                        .map_err(|error| bad(error.to_string()))
                })?;
            if found != *expected {
                return Err(bad("it belongs to another access token".into()));
            }
        }
        let by_our_clock = |when: DateTime<Utc>| {
            Some(Timestamp::from_second(when.timestamp()).ok()? - ahead.unwrap_or_default())
        };
        Ok(Evidence {
            acr: claims.auth_context_ref().map(|acr| acr.to_string()),
            amr: claims.auth_method_refs().into_iter().flatten().map(|amr| amr.to_string()).collect(),
            auth_time: claims.auth_time().and_then(by_our_clock),
        })
    }

    fn wrong_clock(&self, ahead: SignedDuration) -> Error {
        let seconds = ahead.as_secs().unsigned_abs();
        let which = if ahead.is_negative() { "ahead of" } else { "behind" };
        let why = format!(
            "this computer's clock is {seconds} s {which} the identity provider's, so the ID token is not valid by it"
        );
        Error::new(Code::IdentityProviderError, why).cloud(self.at.label()).remedy(format!(
            "set this computer's clock (timedatectl shows it), then: ksb login {}",
            self.at.argument()
        ))
    }
}

/// When an ID token was issued, read before anything vouches for it: to tell what is wrong, not to believe it.
fn issued_at(id_token: &CoreIdToken) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Issued {
        iat: i64,
    }
    let text = id_token.to_string();
    let claims = URL_SAFE_NO_PAD.decode(text.split('.').nth(1)?).ok()?;
    Timestamp::from_second(serde_json::from_slice::<Issued>(&claims).ok()?.iat).ok()
}
