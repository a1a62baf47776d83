//! `ksb` within a command of `ksb exec`: the files and variables that were there around it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CLOUDS_VARIABLE, Config, SECURE_VARIABLE};
use crate::model::Source;

/// Names the environment around `ksb exec`, for `ksb` within its command.
pub const EXEC_VARIABLE: &str = "KSB_EXEC";

/// The environment that `ksb exec` was started in, as far as it replaced that. It says nothing secret.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Outer {
    /// The cloud that the command is for, if it is one.
    cloud: Option<String>,
    /// The clouds.yaml and secure.yaml that were in use.
    clouds: Option<Source>,
    secure: Option<Source>,
    /// The variables of the command, with their values unless they are secret.
    variables: BTreeMap<String, Option<String>>,
}

impl Outer {
    /// For a command that gets these variables, of one cloud or of several.
    pub fn new<'a>(
        config: &Config<'_>,
        cloud: Option<&str>,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let is_secret = |name: &str| ["SECRET", "PASSWORD", "TOKEN"].iter().any(|word| name.contains(word));
        let variables = variables.into_iter().filter(|(name, _)| name.starts_with("OS_"));
        let told =
            |(name, value): (&str, &str)| (name.to_owned(), (!is_secret(name)).then(|| value.to_owned()));
        Self {
            cloud: cloud.map(str::to_owned),
            clouds: config.clouds_file().cloned(),
            secure: config.secure_file().cloned(),
            variables: variables.map(told).collect(),
        }
    }

    /// The value of [`EXEC_VARIABLE`].
    pub fn to_variable(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Takes what `ksb exec` set out of the variables of its command, unless the command changed it. `None` outside.
    pub(super) fn take(vars: &mut BTreeMap<String, String>) -> Option<Self> {
        let mut outer: Self = serde_json::from_str(&vars.remove(EXEC_VARIABLE)?).ok()?;
        let is_changed = |name: &str, vars: &BTreeMap<String, String>| {
            outer.variables.get(name).is_some_and(|value| value.as_ref() != vars.get(name))
        };
        let (own_clouds, own_secure) = (is_changed(CLOUDS_VARIABLE, vars), is_changed(SECURE_VARIABLE, vars));
        vars.retain(|name, value| {
            outer.variables.get(name).is_none_or(|set| set.as_ref().is_some_and(|set| set != value))
        });
        if own_clouds {
            outer.clouds = None;
        }
        if own_secure {
            outer.secure = None;
        }
        if let Some(cloud) = &outer.cloud
            && !own_clouds
        {
            vars.entry("OS_CLOUD".into()).or_insert_with(|| cloud.clone());
        }
        Some(outer)
    }

    /// The file that was in use.
    pub(super) fn file(&self, variable: &str) -> Option<&Source> {
        if variable == CLOUDS_VARIABLE { self.clouds.as_ref() } else { self.secure.as_ref() }
    }
}
