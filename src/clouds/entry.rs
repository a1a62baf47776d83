//! One entry, merged: vendor profile, the entry itself, the region's values, what the caller asks for;
//! then the repairs and renamings of openstacksdk's `OpenStackConfig.get_one`, in its order.
//!
//! The order of keys matters here as it does in a Python `dict`: of `a-b` and `a_b` the later one wins.

use serde_json::{Map, Value};

use super::keys::{OPTIONS, SCOPE_OPTIONS};

pub(super) type Dict = Map<String, Value>;

/// An entry as the SDK hands it to the authentication plugin.
pub(super) struct Entry {
    /// What stands beside `auth`, without the SDK's own defaults.
    pub(super) config: Dict,
    /// What stands under `auth`, and the plugin's options that stood beside it.
    pub(super) auth: Dict,
    /// What a user should know.
    pub(super) notes: Vec<String>,
}

/// Merges secure.yaml's entries over clouds.yaml's (`_util.merge_clouds`). Where the SDK would break on a
/// mapping that meets something else, the mapping wins.
pub(super) fn over(base: &mut Dict, top: Dict) {
    for (key, value) in top {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => over(old, new),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// Merges an entry. `asked` is what wins over files: the region and what `openstack` takes from the
/// environment for any cloud.
pub(super) fn entry(
    raw: &Dict,
    profile: Option<&Dict>,
    region: Option<&str>,
    asked: &[(&str, &str)],
) -> Result<Entry, String> {
    let mut config = Dict::new();
    let mut auth = Dict::new();
    config.insert("auth_type".into(), "password".into()); // the SDK's own default
    for layer in profile.into_iter().chain([raw]) {
        lay(layer, &mut config, &mut auth, false)?;
    }
    let (region, values) = find_region(raw, profile, region)?;
    for used_up in ["regions", "cloud"] {
        config.shift_remove(used_up);
    }
    lay(&values, &mut config, &mut auth, true)?;
    config.insert("region_name".into(), region.into());
    for (key, value) in asked {
        config.insert((*key).into(), (*value).into());
    }

    let mut notes = Vec::new();
    fix_timeouts(&mut config, &mut notes);
    fix_auth_type(&mut config);
    fix_auth(&mut config, &mut auth);
    fix_domain(&mut auth);
    if let Some(Value::String(url)) = auth.get("auth_url") {
        let url = fill_in(url, &config).map_err(|why| format!("{why} in `auth_url`"))?;
        auth.insert("auth_url".into(), url.into());
    }
    let (mut config, mut auth) = (normalize(config), normalize(auth));
    move_options(&mut config, &mut auth, &mut notes);
    for key in ["cacert", "cert", "key"] {
        if let Some(Value::String(path)) = config.get(key) {
            let path = fill_in(path, &config).map_err(|why| format!("{why} in `{key}`"))?;
            config.insert(key.into(), path.into());
        }
    }
    Ok(Entry { config, auth, notes })
}

/// Lays `layer` over what is there: `auth` key by key, everything else whole (`_auth_update`).
fn lay(layer: &Dict, config: &mut Dict, auth: &mut Dict, skip_null: bool) -> Result<(), String> {
    for (key, value) in layer {
        match (key.as_str(), value) {
            ("auth", Value::Object(values)) => auth.extend(values.clone()),
            (_, Value::Null) if skip_null => {}
            ("auth", Value::Null) => {} // the SDK breaks
            ("auth", _) => return Err("`auth` is not a mapping".into()),
            _ => drop(config.insert(key.clone(), value.clone())),
        }
    }
    Ok(())
}

/// The region to use and its own values (`_get_region`): the one asked for, which must be known where any is,
/// or the first.
fn find_region(raw: &Dict, profile: Option<&Dict>, asked: Option<&str>) -> Result<(String, Dict), String> {
    let known = match (get(raw, "regions"), get(raw, "region_name"), profile) {
        (Some(list), ..) => expand_regions(list)?,
        (None, Some(names), _) => match text(names) {
            Some(names) => names.split(',').map(|name| (name.to_owned(), Dict::new())).collect(),
            None => expand_regions(names)?,
        },
        (None, None, Some(profile)) => match (get(profile, "regions"), get(profile, "region_name")) {
            (Some(list), _) => expand_regions(list)?,
            (None, Some(name)) => vec![(text(name).unwrap_or_default(), Dict::new())],
            (None, None) => vec![],
        },
        (None, None, None) => vec![],
    };
    let Some(asked) = asked else { return Ok(known.into_iter().next().unwrap_or_default()) };
    if known.is_empty() {
        return Ok((asked.to_owned(), Dict::new()));
    }
    let names = known.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let found = known.into_iter().find(|(name, _)| name == asked);
    found.ok_or_else(|| format!("there is no region `{asked}`, only {names}"))
}

/// A key under its own name or with dashes. Null and nothing count as absent (the SDK breaks on null).
fn get<'d>(dict: &'d Dict, key: &str) -> Option<&'d Value> {
    let found = dict.iter().rev().find(|(name, _)| name.replace('-', "_") == key)?.1;
    (!found.is_null() && found != "").then_some(found)
}

/// `[a, b]`, `[{name: a, values: {…}}]`, or both mixed.
fn expand_regions(list: &Value) -> Result<Vec<(String, Dict)>, String> {
    let Value::Array(list) = list else { return Err("`regions` is not a list".into()) };
    list.iter()
        .map(|region| match region {
            Value::Object(region) => {
                let name = region.get("name").and_then(text);
                let values = match region.get("values") {
                    None | Some(Value::Null) => Some(Dict::new()),
                    Some(Value::Object(values)) => Some(values.clone()),
                    Some(_) => None,
                };
                let known = region.keys().all(|key| key == "name" || key == "values");
                name.zip(values).filter(|_| known)
            }
            name => text(name).map(|name| (name, Dict::new())),
        })
        .map(|region| {
            region.ok_or_else(|| "a region under `regions` is neither a name nor `{name, values}`".into())
        })
        .collect()
}

/// Any `…timeout` beside `auth` becomes the HTTP time-out (`_fix_backwards_api_timeout`), alas also
/// `login_timeout`.
fn fix_timeouts(config: &mut Dict, notes: &mut Vec<String>) {
    let taken: Vec<_> = config
        .keys()
        .filter(|key| key.ends_with("timeout") && !["timeout", "api_timeout"].contains(&key.as_str()))
        .cloned()
        .collect();
    for key in taken {
        if key.replace('-', "_") == "login_timeout" {
            let what = "`login_timeout` must stand under `auth`: beside it, it is the SDK's HTTP time-out";
            notes.push(what.into());
        }
        if let Some(value) = config.shift_remove(&key) {
            config.insert("api_timeout".into(), value);
        }
    }
}

/// `auth_plugin` is an old name that always loses to the default (`_fix_backwards_auth_plugin`). The key ends
/// up last, so that it beats `auth-type` as well.
fn fix_auth_type(config: &mut Dict) {
    config.shift_remove("auth_plugin");
    if let Some(auth_type) = config.shift_remove("auth_type") {
        config.insert("auth_type".into(), auth_type);
    }
}

/// Old names and names with dashes; here what stands beside `auth` wins (`_fix_backwards_auth`). The SDK
/// makes the text `None` of a null, we nothing.
fn fix_auth(config: &mut Dict, auth: &mut Dict) {
    for (target, names) in [
        ("domain_id", &["domain_id", "domain-id"][..]),
        ("domain_name", &["domain_name", "domain-name"]),
        ("user_domain_id", &["user_domain_id", "user-domain-id"]),
        ("user_domain_name", &["user_domain_name", "user-domain-name"]),
        ("project_domain_id", &["project_domain_id", "project-domain-id"]),
        ("project_domain_name", &["project_domain_name", "project-domain-name"]),
        ("token", &["auth-token", "auth_token", "token"]),
        ("passcode", &["passcode"]),
        ("project_id", &["tenant_id", "tenant-id", "project_id", "project-id"]),
        ("project_name", &["tenant_name", "tenant-name", "project_name", "project-name"]),
    ] {
        let mut winner = None;
        for name in names {
            for place in [&mut *auth, &mut *config] {
                if let Some(value) = place.shift_remove(*name).filter(|value| !value.is_null()) {
                    winner = text(&value);
                }
            }
        }
        if let Some(value) = winner {
            auth.insert(target.into(), value.into());
        }
    }
}

/// With a project, `domain_*` is its domain's name for people who write it once (`_handle_domain_id`).
fn fix_domain(auth: &mut Dict) {
    if !auth.contains_key("project_id") && !auth.contains_key("project_name") {
        return;
    }
    for kind in ["id", "name"] {
        let Some(domain) = auth.shift_remove(&format!("domain_{kind}")) else { continue };
        for owner in ["user", "project"] {
            let key = format!("{owner}_domain_{kind}");
            auth.entry(key).or_insert_with(|| domain.clone());
        }
    }
}

/// `{region_name}` and the like: the part of Python's `str.format` that clouds.yaml files use.
fn fill_in(template: &str, config: &Dict) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
        } else {
            let name = rest.split_once('}').filter(|_| brace == "{");
            let (name, after) = name.ok_or_else(|| format!("a lone `{brace}`"))?;
            let value =
                config.get(name).and_then(text).ok_or_else(|| format!("nothing known as `{{{name}}}`"))?;
            out.push_str(&value);
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Dashes become underscores and numbers text (`_util.normalize_keys`).
fn normalize(dict: Dict) -> Dict {
    let mut out = Dict::with_capacity(dict.len());
    for (key, value) in dict {
        let value = match value {
            Value::Object(inner) => Value::Object(normalize(inner)),
            Value::Number(number) => number.to_string().into(),
            other => other,
        };
        out.insert(key.replace('-', "_"), value);
    }
    out
}

/// The plugin's options move from beside `auth` to under it, where a value that is there already wins; empty
/// ones vanish (`_validate_auth`). `openstack` itself lets the one beside win: say so when they differ.
fn move_options(config: &mut Dict, auth: &mut Dict, notes: &mut Vec<String>) {
    let lists = |value: &Value| value.as_array().is_some_and(|items| !items.is_empty());
    let says_something = |value: &Value| (text(value).is_some() && value != false) || lists(value);
    for key in OPTIONS.into_iter().chain(SCOPE_OPTIONS) {
        let beside = config.shift_remove(key).filter(says_something);
        let under = auth.shift_remove(key).filter(says_something);
        if let (Some(beside), Some(under)) = (&beside, &under)
            && beside != under
        {
            notes.push(format!(
                "`{key}` stands beside and under `auth` with different values; the one under it is used"
            ));
        }
        if let Some(value) = under.or(beside) {
            auth.insert(key.into(), value);
        }
    }
}

/// `str(value)` of what is a text, a number or a boolean; nothing for an empty text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".into()),
        Value::Bool(false) => Some("False".into()),
        _ => None,
    }
}
