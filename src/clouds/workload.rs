//! How an entry says which program without a user it is for.

use std::path::PathBuf;

use url::Url;

use super::resolve::address;
use super::{Environment, proxy, sign_in};
use crate::model::{ClientCredentials, Secret, Workload, command_limit, openid_scope};

/// keystoneauth's plugin for a client that signs itself in.
pub(super) const CLIENT: &str = "v3oidcclientcredentials";

/// keystoneauth's plugin for a token that the entry holds.
pub(super) const TOKEN: &str = "v3oidcaccesstoken";

const NO_SOURCE: &str = "`sign_in: workload` needs a token: `token_file`, `token_env` (at GitLab the variable that \
    `id_tokens:` names), `token_command` or `access_token`, or `client_id` and `client_secret`, or GitHub Actions with \
    `permissions: id-token: write`";

/// The source that the entry names, or GitHub's where we run there.
pub(super) fn of(
    env: &Environment,
    auth_type: &str,
    option: impl Fn(&str) -> Option<String>,
) -> Result<Workload, String> {
    if auth_type == CLIENT {
        return client(env, option).map(Workload::Client);
    }
    if let Some(path) = option("token_file") {
        return Ok(Workload::File { path: absolute(env, &path) });
    }
    if let Some(name) = option("token_env") {
        let token =
            env.get(&name).ok_or_else(|| format!("`token_env`: the variable {name} is not set here"))?;
        return Ok(Workload::Token { from: format!("${name}"), token: Secret::new(token) });
    }
    if let Some(command) = option("token_command") {
        let limit = match option("token_command_limit") {
            None => command_limit(),
            Some(seconds) => seconds
                .parse()
                .ok()
                .filter(|seconds| (1..=600).contains(seconds))
                .ok_or("`token_command_limit` is not a number of seconds up to 600")?,
        };
        return Ok(Workload::Command { command, limit, token: None });
    }
    if let Some(token) = option("access_token") {
        return Ok(Workload::Token { from: "access_token".into(), token: Secret::new(token) });
    }
    if option("client_id").is_some() {
        return client(env, option).map(Workload::Client);
    }
    github(env, option("token_audience")).ok_or_else(|| NO_SOURCE.into())
}

fn absolute(env: &Environment, path: &str) -> PathBuf {
    match path.strip_prefix("~/") {
        Some(inside) => env.home.join(inside),
        None => env.current_dir.join(path),
    }
}

/// "Requesting the JWT using environment variables" of GitHub's OpenID Connect reference.
fn github(env: &Environment, audience: Option<String>) -> Option<Workload> {
    let url = Url::parse(env.get("ACTIONS_ID_TOKEN_REQUEST_URL")?).ok()?;
    let request_token = Secret::new(env.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?);
    let proxy = proxy::of(env, &url);
    Some(Workload::Github { url, request_token, audience, proxy })
}

fn client(env: &Environment, option: impl Fn(&str) -> Option<String>) -> Result<ClientCredentials, String> {
    let needed = |key: &str| {
        option(key).ok_or_else(|| format!("no `{key}` under `auth`, which this way to sign in needs"))
    };
    let endpoint = |key: &str| option(key).map(|url| address(key, &url)).transpose();
    // As in keystoneauth, the address itself wins over the metadata that name one.
    let (token, discovery) = (endpoint("access_token_endpoint")?, endpoint("discovery_endpoint")?);
    let address = token.as_ref().or(discovery.as_ref());
    let address = address.ok_or("neither `discovery_endpoint` nor `access_token_endpoint` under `auth`")?;
    Ok(ClientCredentials {
        proxy: proxy::of(env, address),
        client_id: needed("client_id")?,
        client_secret: Secret::new(needed("client_secret")?),
        scope: option("openid_scope").unwrap_or_else(openid_scope),
        bearer: sign_in::bearer(option("access_token_type").as_deref())?,
        token_endpoint: token,
        discovery_endpoint: discovery,
    })
}
