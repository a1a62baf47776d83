//! How an entry says that people sign in.

use url::Url;

use super::entry::{Entry, text};
use super::resolve::address;
use super::{Environment, password, proxy, workload};
use crate::model::{
    AuthMethod, Bearer, OidcClient, Requirements, Secret, SignInOptions, Way, callback_path, openid_scope,
};

/// keystoneauth's plugin for the authorization code flow: the code is pasted there, and comes by itself here.
pub(super) const AUTHCODE: &str = "v3oidcauthcode";

/// keystoneauth's plugin for the device authorization flow.
pub(super) const DEVICE: &str = "v3oidcdeviceauthz";

/// The way that the command line or `sign_in` names, or the one of the entry's own plugin.
pub(super) fn of(
    env: &Environment,
    entry: &Entry,
    auth_type: &str,
    wanted: Option<&str>,
) -> Result<SignInOptions, String> {
    let option = |key: &str| entry.auth.get(key).and_then(text);
    // An entry that was moved over from another plugin names no way, but has what one needs.
    let has_client = || option("discovery_endpoint").is_some() && option("client_id").is_some();
    let mut way = match option("sign_in") {
        Some(named) => named_way(env, &named)?,
        None if [workload::CLIENT, workload::TOKEN].contains(&auth_type) => Way::Workload,
        None if password::is_meant(auth_type, entry) => Way::Password,
        None if auth_type == DEVICE => Way::OidcDevice,
        None if auth_type == AUTHCODE || has_client() => Way::OidcCode,
        None if option("access_token").is_some() => Way::Workload,
        None => Way::Websso,
    };
    if let Some(wanted) = wanted {
        // Another identity provider's client is another identity: its session would serve nobody who reads this entry.
        if [Way::Websso, Way::Workload, Way::Password].contains(&way) {
            return Err(format!(
                "it signs in by {}; only an OAuth client can choose between ways",
                name(way)
            ));
        }
        way = named_way(env, wanted)?;
    }
    let mut options = SignInOptions { way, ..SignInOptions::default() };
    match way {
        Way::Websso => {}
        Way::Workload => options.workload = Some(workload::of(env, auth_type, option)?),
        Way::Password => options.password = Some(password::of(auth_type, entry)?),
        Way::OidcCode | Way::OidcDevice => {
            // Any free port, as RFC 8252 has it, unless the operator could register only one.
            (options.redirect_host, options.redirect_port) = ("127.0.0.1".into(), 0);
            options.oidc = Some(oidc(env, option, &mut options)?);
        }
    }
    if let Some(host) = option("redirect_host") {
        // In an address IPv6 stands in brackets (RFC 3986, section 3.2.2).
        let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
        options.redirect_host = if is_v6 { format!("[{host}]") } else { host };
    }
    if let Some(port) = option("redirect_port") {
        let port = port.parse().ok().filter(|port| *port > 0);
        options.redirect_port = port.ok_or("`redirect_port` is not a port number")?;
    }
    if let Some(timeout) = option("login_timeout") {
        let seconds =
            timeout.parse().ok().map(|seconds: f64| seconds.ceil()).filter(|s| (1.0..=86_400.0).contains(s));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between a second and a day"
        )]
        let seconds = seconds.map(|seconds| seconds as u64);
        options.timeout = seconds.ok_or("`login_timeout` is not a number of seconds up to a day")?;
    }
    Ok(options)
}

fn named_way(env: &Environment, name: &str) -> Result<Way, String> {
    match name {
        "websso" => Ok(Way::Websso),
        "oidc_code" => Ok(Way::OidcCode),
        "auto" if env.browser_location().can_be_opened() => Ok(Way::OidcCode),
        "oidc_device" | "auto" => Ok(Way::OidcDevice),
        "workload" => Ok(Way::Workload),
        "password" => Ok(Way::Password),
        _ => Err(format!(
            "`sign_in: {name}` is not a way to sign in; there are `websso`, `oidc_code`, `oidc_device`, `auto`, \
             `workload` and `password`"
        )),
    }
}

/// The client at the OpenID provider; `redirect_uri` also decides where we listen.
fn oidc(
    env: &Environment,
    option: impl Fn(&str) -> Option<String>,
    options: &mut SignInOptions,
) -> Result<OidcClient, String> {
    let needed = |key: &str| {
        option(key).ok_or_else(|| format!("no `{key}` under `auth`, which this way to sign in needs"))
    };
    let discovery_endpoint = address("discovery_endpoint", &needed("discovery_endpoint")?)?;
    let bearer = bearer(option("access_token_type").as_deref())?;
    let auth_method = match option("token_endpoint_auth_method").as_deref() {
        None => None,
        Some("client_secret_basic") => Some(AuthMethod::ClientSecretBasic),
        Some("client_secret_post") => Some(AuthMethod::ClientSecretPost),
        Some(other) => {
            return Err(format!(
                "`token_endpoint_auth_method: {other}` is neither client_secret_basic nor client_secret_post"
            ));
        }
    };
    let mut redirect_path = callback_path();
    // Out of band, keystoneauth's default, means no address at all.
    if let Some(uri) = option("redirect_uri").filter(|uri| !uri.starts_with("urn:")) {
        let url = Url::parse(&uri).ok().filter(|url| url.scheme() == "http");
        let url =
            url.ok_or_else(|| format!("`redirect_uri: {uri}` is not an http address of this computer"))?;
        url.host_str().unwrap_or_default().clone_into(&mut options.redirect_host);
        options.redirect_port = url.port().unwrap_or(80);
        url.path().clone_into(&mut redirect_path);
    }
    let asked = ["prompt", "max_age", "acr_values", "login_hint"];
    Ok(OidcClient {
        proxy: proxy::of(env, &discovery_endpoint),
        discovery_endpoint,
        client_id: needed("client_id")?,
        client_secret: option("client_secret").map(Secret::new),
        auth_method,
        scope: option("openid_scope").unwrap_or_else(openid_scope),
        bearer,
        redirect_path,
        require: Requirements {
            amr: option("require_amr")
                .map(|methods| {
                    methods.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
                })
                .unwrap_or_default(),
            max_auth_age: option("max_auth_age")
                .map(|age| age.parse().map_err(|_| "`max_auth_age` is not a number of seconds"))
                .transpose()?,
        },
        extra: asked.iter().filter_map(|key| Some(((*key).to_owned(), option(key)?))).collect(),
    })
}

/// Which of the provider's tokens Keystone takes (`access_token_type`).
pub(super) fn bearer(kind: Option<&str>) -> Result<Bearer, String> {
    match kind {
        None | Some("access_token") => Ok(Bearer::AccessToken),
        Some("id_token") => Ok(Bearer::IdToken),
        Some(other) => Err(format!("`access_token_type: {other}` is neither access_token nor id_token")),
    }
}

/// What the entry calls it.
fn name(way: Way) -> &'static str {
    match way {
        Way::Websso => "websso",
        Way::OidcCode => "oidc_code",
        Way::OidcDevice => "oidc_device",
        Way::Workload => "workload",
        Way::Password => "password",
    }
}
