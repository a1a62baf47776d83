//! What a scenario needs of the world around the agent, so that the same scenario runs against the
//! double and against the real stack.

use serde_json::Value;

use super::api::Api;

/// A cloud with people in it, and an agent that nobody is signed in to yet.
///
/// The cloud looks like the one of `tests/stack/README.md`: identity providers `lab-idp` (found also
/// by its protocol alone), `other-idp` and `local-idp`, protocol `openid`, projects in domain `lab`.
/// A scenario has the world for itself.
pub trait World {
    /// The agent under test.
    fn api(&self) -> &Api;

    /// A cloud as the API takes it: called `demo`, at `lab-idp`, with its TLS settings and a callback
    /// port that the cloud trusts.
    fn cloud(&self) -> Value;

    /// Every way to write `auth_url` that means the Keystone of [`Self::cloud`].
    fn auth_urls(&self) -> Vec<String>;

    /// The same Keystone below a path (`…/identity/v3`): to the broker another one.
    fn auth_url_with_path(&self) -> String;

    /// Two people: the first sees the projects demo, staging and production, the second demo and solo.
    fn people(&self) -> [&'static str; 2];

    /// A user opens `url` in a browser that knows nobody else, signs in and says yes when asked.
    /// Returns what the last page says in its body's `data-ksb-state`.
    fn browse(&self, url: &str, person: &str) -> String;

    /// How many sign-ins Keystone has completed (answers to `…/websso` with a token).
    fn logins(&self) -> usize;

    /// How many tokens Keystone has made from others (`201` of `POST /v3/auth/tokens`).
    fn exchanges(&self) -> usize;

    /// The administrator revokes a token.
    fn revoke(&self, token: &str);

    /// Whether Keystone still accepts a token.
    fn accepts(&self, token: &str) -> bool;
}
