//! How an entry names a user that Keystone itself knows.

use serde_json::Value;

use super::entry::{Entry, text};
use crate::model::{DomainRef, Factor, LocalUser, Secret, UserRef, password_first};

/// keystoneauth's plugin for a one-time code alone.
pub(super) const TOTP: &str = "v3totp";

/// keystoneauth's plugin for several methods, which `auth_methods` names.
pub(super) const SEVERAL: &str = "v3multifactor";

/// Whether the entry is for such a user, whatever it says besides.
pub(super) fn is_meant(auth_type: &str, entry: &Entry) -> bool {
    let says = |key: &str| entry.auth.get(key).is_some_and(|value| text(value).is_some());
    let named = entry.auth.get("sign_in").and_then(text);
    match named.as_deref() {
        Some(way) => way == "password",
        // Nobody federated signs in without a protocol; an entry that was moved over has what a user needs.
        None => [TOTP, SEVERAL].contains(&auth_type) || (!says("protocol") && methods(entry).is_some()),
    }
}

/// The user, what the entry wants shown, and a password that it holds. A one-time code in it is old by now.
pub(super) fn of(auth_type: &str, entry: &Entry) -> Result<LocalUser, String> {
    let option =
        |key: &str| [&entry.auth, &entry.config].into_iter().find_map(|place| place.get(key).and_then(text));
    let user = if let Some(id) = option("user_id") {
        UserRef { id: Some(id), name: None, domain: None }
    } else {
        let name = option("username").ok_or("neither `username` nor `user_id` under `auth`")?;
        let id = option("user_domain_id");
        let domain = DomainRef { name: option("user_domain_name").filter(|_| id.is_none()), id };
        if domain == DomainRef::default() {
            return Err("neither `user_domain_name` nor `user_domain_id` under `auth`".into());
        }
        UserRef { id: None, name: Some(name), domain: Some(domain) }
    };
    let methods = match methods(entry) {
        Some(names) => names
            .iter()
            .map(|name| {
                let known = Factor::named(name.strip_prefix("v3").unwrap_or(name));
                known.ok_or_else(|| format!("`auth_methods`: {name} is neither v3password nor v3totp"))
            })
            .collect::<Result<_, _>>()?,
        None if auth_type == TOTP => vec![Factor::Totp],
        None => password_first(),
    };
    Ok(LocalUser { user, methods, password: option("password").map(Secret::new) })
}

/// A list, or names with commas between them.
fn methods(entry: &Entry) -> Option<Vec<String>> {
    let names: Vec<_> = match entry.auth.get("auth_methods")? {
        Value::Array(names) => names.iter().filter_map(text).collect(),
        other => text(other)?.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    (!names.is_empty()).then_some(names)
}
