//! Keystone itself, Skyline's list, and openstacksdk's vendor profile.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{MOST_CHOICES, Visit, is_name, shown, websso};
use crate::api::Choice;
use crate::http_client::Answer;
use crate::model::page_words;

/// `skyline_apiserver.api.v1.login.get_sso`, behind the console's own prefix.
const SKYLINE: &str = "/api/openstack/skyline/api/v1/sso";
/// `openstack.config.vendors`.
const PROFILE: &str = "/.well-known/openstack/api";

/// A version document, of `/v3` or of the root.
pub(super) fn is_keystone(answer: &Answer) -> bool {
    let Ok(document) = serde_json::from_str::<Value>(&answer.body) else { return false };
    let is_v3 = |version: &Value| version["id"].as_str().is_some_and(|id| id.starts_with("v3"));
    is_v3(&document["version"])
        || document["versions"]["values"].as_array().is_some_and(|versions| versions.iter().any(is_v3))
}

#[derive(Deserialize)]
struct Sso {
    #[serde(default)]
    protocols: Vec<Protocol>,
}

#[derive(Deserialize)]
struct Protocol {
    protocol: String,
    url: String,
}

#[derive(Deserialize)]
struct Published {
    name: String,
    profile: Profile,
}

#[derive(Deserialize)]
struct Profile {
    auth: Auth,
    #[serde(default)]
    region_name: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(rename = "auth_url")]
    url: Url,
    #[serde(default)]
    identity_provider: Option<String>,
    #[serde(default)]
    protocol: Option<String>,
}

impl Visit<'_> {
    pub(super) async fn skyline(&mut self, at: &Url) -> Vec<Choice> {
        let Some(sso) = self.json::<Sso>(at, SKYLINE).await else { return Vec::new() };
        let mut found = Vec::new();
        for each in sso.protocols.into_iter().take(MOST_CHOICES) {
            let choice =
                Url::parse(&each.url).ok().and_then(|url| Some((websso(&url, &each.protocol)?, url)));
            if let Some((choice, url)) = choice
                && self.follows(at, &url).await.is_ok()
            {
                found.push(choice);
            }
        }
        found
    }

    pub(super) async fn profile(&mut self, at: &Url) -> Vec<Choice> {
        let Some(Published { name, profile }) = self.json::<Published>(at, PROFILE).await else {
            return Vec::new();
        };
        let Auth { url: auth_url, identity_provider, protocol } = profile.auth;
        let names = [&identity_provider, &protocol, &profile.region_name];
        if !names.into_iter().flatten().all(|name| is_name(name))
            || self.follows(at, &auth_url).await.is_err()
        {
            return Vec::new();
        }
        let auth_url = shown(&auth_url);
        vec![Choice {
            label: page_words(&name),
            auth_url,
            identity_provider,
            protocol,
            region: profile.region_name,
        }]
    }

    /// A document on the same server. Whatever else is there is nothing to us.
    async fn json<T: for<'de> Deserialize<'de>>(&mut self, at: &Url, path: &str) -> Option<T> {
        let url = at.join(path).ok()?;
        self.check(&url).ok()?;
        let answer = self.get(&url).await.ok().filter(|answer| answer.status == 200)?;
        serde_json::from_str(&answer.body).ok()
    }
}
