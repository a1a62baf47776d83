//! The keys of an entry: which ones the plugin declares, and which ones anybody knows.

use serde_json::{Map, Value};

use super::entry::Entry;

/// Options of `v3websso` and `v3broker` that may stand beside `auth` as well as under it. (The plugin does
/// not declare `auth_url`, but finds it there all the same; `min_validity` is for it alone.)
pub(super) const OPTIONS: [&str; 29] = [
    "access_token_type",
    "acr_values",
    "auth_methods",
    "auth_url",
    "client_id",
    "client_secret",
    "discovery_endpoint",
    "identity_provider",
    "protocol",
    "username",
    "redirect_host",
    "redirect_port",
    "login_timeout",
    "sign_in",
    "login_hint",
    "logout_url",
    "max_age",
    "max_auth_age",
    "min_validity",
    "openid_scope",
    "prompt",
    "redirect_uri",
    "require_amr",
    "token_audience",
    "token_command",
    "token_command_limit",
    "token_env",
    "token_file",
    "token_endpoint_auth_method",
];

/// Options of every v3 plugin that choose the scope.
pub(super) const SCOPE_OPTIONS: [&str; 8] = [
    "project_id",
    "project_name",
    "project_domain_id",
    "project_domain_name",
    "domain_id",
    "domain_name",
    "system_scope",
    "trust_id",
];

/// Those of them that say in which domain a project's name is meant.
pub(super) const PROJECT_DOMAIN: [&str; 2] = ["project_domain_id", "project_domain_name"];

/// What the plugin takes besides, what the SDK puts there for `domain_name`, and options of other federated
/// plugins: an entry that `ksb clouds adopt` moved over still has them.
const UNDER: [&str; 18] = [
    "access_token",
    "access_token_endpoint",
    "authorization_endpoint",
    "cloud",
    "code_challenge_method",
    "default_domain_id",
    "default_domain_name",
    "device_authorization_endpoint",
    "idp_otp_key",
    "include_catalog",
    "passcode",
    "password",
    "reauthenticate",
    "tenant_id",
    "tenant_name",
    "user_domain_id",
    "user_domain_name",
    "user_id",
];

/// openstack/config/schema.json, and what the SDK and osc-lib read besides.
const BESIDE: [&str; 36] = [
    "additional_metric_tags",
    "api_timeout",
    "auth_methods",
    "auth_type",
    "cacert",
    "cache",
    "cert",
    "concurrency",
    "default_domain",
    "disable_vendor_agent",
    "external_network",
    "floating_ip_source",
    "force_ipv4",
    "image_api_use_tasks",
    "image_format",
    "insecure",
    "interface",
    "internal_network",
    "key",
    "log_file",
    "log_level",
    "message",
    "metrics",
    "networks",
    "prefer_ipv6",
    "private",
    "profile",
    "rate_limit",
    "region_name",
    "requires_floating_ip",
    "secgroup_source",
    "status",
    "timeout",
    "timing",
    "vendor_hook",
    "verify",
];

/// One for each service, and some also for all.
const ENDINGS: [&str; 15] = [
    "api_version",
    "connect_retries",
    "connect_retry_delay",
    "default_microversion",
    "disabled_reason",
    "endpoint",
    "endpoint_override",
    "endpoint_type",
    "interface",
    "region_name",
    "retriable_status_codes",
    "service_name",
    "service_type",
    "status_code_retries",
    "status_code_retry_delay",
];

/// Beside `auth`, but about it, or resolved to something else, or leading back to what another entry replaces.
const RESOLVED: [&str; 10] = [
    "auth_type",
    "cacert",
    "cert",
    "default_domain",
    "identity_api_version",
    "insecure",
    "key",
    "profile",
    "vendor_hook",
    "verify",
];

/// What an entry says of all but TLS and the way to authenticate: it is good for another entry that has its own.
pub(super) fn settings(entry: &Entry) -> Map<String, Value> {
    let foreign = |key: &str| {
        RESOLVED.contains(&key)
            || OPTIONS.contains(&key)
            || SCOPE_OPTIONS.contains(&key)
            || UNDER.contains(&key)
            || is_secret(key)
    };
    let settings = entry.config.iter().filter(|(key, value)| !foreign(key) && **value != "");
    settings.map(|(key, value)| (key.clone(), without_secrets(value))).collect()
}

fn without_secrets(value: &Value) -> Value {
    let Value::Object(map) = value else { return value.clone() };
    let open = map.iter().filter(|(key, _)| !is_secret(key));
    open.map(|(key, value)| (key.clone(), without_secrets(value))).collect()
}

/// Whether what stands under a key is for nobody's eyes.
pub(super) fn is_secret(key: &str) -> bool {
    ["password", "secret", "token", "passcode", "passphrase"].iter().any(|secret| key.ends_with(secret))
}

/// Keys of a `v3broker` entry that neither the plugin nor the SDK knows.
pub(super) fn unknown(entry: &Entry) -> Vec<String> {
    let known_beside = |key: &str| {
        BESIDE.contains(&key) || key.starts_with("has_") || ENDINGS.iter().any(|ending| key.ends_with(ending))
    };
    let known_under =
        |key: &str| OPTIONS.contains(&key) || SCOPE_OPTIONS.contains(&key) || UNDER.contains(&key);
    let beside = entry.config.keys().filter(|key| !known_beside(key)).map(|key| format!("`{key}`"));
    let under = entry.auth.keys().filter(|key| !known_under(key)).map(|key| format!("`auth.{key}`"));
    beside.chain(under).collect()
}
