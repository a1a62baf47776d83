//! The proxy that the environment names for an address, as requests (and so keystoneauth) reads it.

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use super::Environment;

/// The proxy's URL, with the user name and password it may carry. Small letters win over capitals, the
/// scheme's own variable over `all_proxy`; an empty variable switches off.
pub(super) fn of(env: &Environment, destination: &Url) -> Option<String> {
    let variable =
        |name: &str| env.vars.get(name).or_else(|| env.vars.get(&name.to_uppercase())).map(String::as_str);
    let filled = |name: &str| variable(name).filter(|value| !value.is_empty());
    let proxy = filled(&format!("{}_proxy", destination.scheme())).or_else(|| filled("all_proxy"))?;
    // requests falls back to NO_PROXY also when `no_proxy` is empty.
    let except = filled("no_proxy").or_else(|| env.get("NO_PROXY")).unwrap_or_default();
    // The matcher knows `*` for names only, urllib for addresses, too.
    if except.trim() == "*" {
        return None;
    }
    let matcher = Matcher::builder().all(proxy).no(except).build();
    matcher.intercept(&destination.as_str().parse().ok()?)?;
    Some(if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") })
}
