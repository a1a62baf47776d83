//! OAuth's client credentials grant (RFC 6749 section 4.4), as keystoneauth's `v3oidcclientcredentials` sends it.

use serde::Deserialize;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::error::{Code, Error, Result};
use crate::http_client::{self, Answer, Outbound, Peer};
use crate::model::{Bearer, ClientCredentials, Cloud, Secret};

#[derive(Deserialize)]
struct Metadata {
    token_endpoint: Url,
}

#[derive(Deserialize)]
struct Granted {
    access_token: Option<Secret>,
    id_token: Option<Secret>,
}

/// RFC 6749 section 5.2.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

/// A token for the client itself.
pub(super) async fn token(cloud: &Cloud, client: &ClientCredentials, outbound: &Outbound) -> Result<Secret> {
    let at = Cloud { proxy: client.proxy.clone(), ..cloud.clone() };
    let http = outbound.client(&at)?;
    let endpoint = match (&client.token_endpoint, &client.discovery_endpoint) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(metadata)) => {
            let answer = http_client::send(&at, Peer::IdentityProvider, http.get(metadata.clone())).await?;
            let known = serde_json::from_str::<Metadata>(&answer.body).ok().filter(|_| answer.status == 200);
            let missing =
                || failed(&at, &format!("its metadata name no token endpoint (HTTP {})", answer.status));
            known.ok_or_else(missing)?.token_endpoint
        }
        (None, None) => {
            return Err(
                Error::new(Code::InvalidConfig, "no address that gives out tokens").cloud(cloud.label())
            );
        }
    };
    let form = Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("scope", &client.scope)
        .finish();
    // Encoded before they are joined (RFC 6749 section 2.3.1).
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let (id, secret) = (encoded(&client.client_id), encoded(client.client_secret.expose()));
    let request = http
        .post(endpoint)
        .basic_auth(id, Some(secret))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Accept", "application/json")
        .body(form);
    let answer = http_client::send(&at, Peer::IdentityProvider, request).await?;
    if answer.status != 200 {
        return Err(refused(&at, client, &answer));
    }
    let granted: Granted =
        serde_json::from_str(&answer.body).map_err(|_| failed(&at, "its answer is not understood"))?;
    let (token, name) = match client.bearer {
        Bearer::AccessToken => (granted.access_token, "access_token"),
        Bearer::IdToken => (granted.id_token, "id_token"),
    };
    token.ok_or_else(|| failed(&at, &format!("it gives no {name}, which Keystone is to take")))
}

fn refused(at: &Cloud, client: &ClientCredentials, answer: &Answer) -> Error {
    let said = serde_json::from_str::<Refusal>(&answer.body).map(|said| {
        said.error_description.map_or(said.error.clone(), |why| format!("{} ({why})", said.error))
    });
    let said = said.unwrap_or_else(|_| format!("HTTP {}", answer.status));
    failed(at, &format!("{said} to client {}", client.client_id))
}

fn failed(at: &Cloud, why: &str) -> Error {
    Error::new(Code::IdentityProviderError, format!("the identity provider answered: {why}"))
        .cloud(at.label())
        .remedy(format!(
            "correct client_id, client_secret or the endpoint: ksb clouds show {}",
            at.argument()
        ))
}
