//! The entries of clouds.yaml that `ksb clouds add` wrote, known by the marks on their lines.

use std::collections::BTreeMap;
use std::fs;

use crate::cli::yaml::{self, CLOUDS, Kind, Mark};
use crate::clouds::{Config, Environment};

/// An entry of our making.
pub(in crate::cli) struct Own {
    /// The id of its lease.
    pub(in crate::cli) lease: Option<String>,
}

/// By their names. Of two in different files the first one counts, as it does for openstacksdk.
pub(in crate::cli) fn own_entries(env: &Environment, config: &Config<'_>) -> BTreeMap<String, Own> {
    let mut found = BTreeMap::new();
    for path in yaml::own_places(env, config, Kind::Clouds) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for name in yaml::marked(&text, &[], Mark::Add) {
            let lease = lease_of(&text, &name);
            found.entry(name).or_insert(Own { lease });
        }
    }
    found
}

/// The id of an entry's lease. Anything else that stands there is not ours, and might be another lease's name.
pub(super) fn lease_of(text: &str, name: &str) -> Option<String> {
    let id = yaml::said(text, &[CLOUDS, name, "auth", "application_credential_id"])?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}
