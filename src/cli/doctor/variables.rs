//! Environment variables that win over clouds.yaml, or are mixed with it.

use super::{Helped, finding};
use crate::api::{Finding, Found};
use crate::cli::clouds::own_entries;
use crate::cli::lease_env::{IN_THE_WAY, no_proxy_for_loopback};
use crate::clouds::{CLOUDS_VARIABLE, Config, Environment, SECURE_VARIABLE};

const CHECK: &str = "environment";
/// They choose among entries, or say what holds for every Keystone there is.
const HARMLESS: [&str; 3] = ["OS_CLOUD", "OS_CLOUD_NAME", "OS_IDENTITY_API_VERSION"];
/// Each wins over one key of every entry: for us (`clouds`), and for the `openstack` command (osc-lib's options).
const OVER_A_KEY: [(&str, &str); 5] = [
    ("OS_CACERT", "cacert"),
    ("OS_CERT", "cert"),
    ("OS_INTERFACE", "interface"),
    ("OS_KEY", "key"),
    ("OS_REGION_NAME", "region_name"),
];

pub(super) fn check(env: &Environment, config: Option<&Config<'_>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_set = |name: &&str| env.get(name).is_some();
    let of_a_key = |name: &&str| OVER_A_KEY.iter().any(|(variable, _)| variable == name);
    let mixed: Vec<_> = IN_THE_WAY
        .into_iter()
        .filter(is_set)
        .filter(|name| !HARMLESS.contains(name) && !of_a_key(name))
        .collect();
    if !mixed.is_empty() {
        // Only their names: some of them hold secrets.
        let names = mixed.join(" ");
        let detail = format!("tools take these before, or mixed with, what clouds.yaml says: {names}");
        findings.push(finding(CHECK, "", Found::Warn, detail).remedy(format!("unset {names}")));
    }
    for (name, key) in OVER_A_KEY.into_iter().filter(|(name, _)| is_set(name)) {
        let detail = format!("{name} wins over `{key}` of every entry of clouds.yaml");
        let remedy = format!("unset {name}; where it is needed, write `{key}` into the entry");
        findings.push(finding(CHECK, "", Found::Warn, detail).remedy(remedy));
    }
    if let Some(config) = config {
        findings.extend(other_files(env, config));
    }
    let has_leases = |config: &Config<'_>| !own_entries(env, config).is_empty();
    if let Some(remedy) = no_proxy_for_loopback(env).filter(|_| config.is_some_and(has_leases)) {
        let detail = "programs would ask the proxy of your environment for 127.0.0.1, where `ksb clouds add` has them go";
        findings.push(finding(CHECK, "", Found::Warn, detail).remedy(remedy));
    }
    if findings.is_empty() {
        findings.push(finding(CHECK, "", Found::Ok, "no variable wins over clouds.yaml"));
    }
    if let (Some(name), Some(config)) = (env.get("OS_CLOUD"), config)
        && !config.names().any(|entry| entry == name)
    {
        let detail = format!("OS_CLOUD={name} names no entry of clouds.yaml");
        findings
            .push(finding(CHECK, "", Found::Fail, detail).remedy("unset OS_CLOUD, or set it to an entry"));
    }
    findings
}

/// Variables that have another file read than the one that would be found without them.
fn other_files(env: &Environment, config: &Config<'_>) -> Vec<Finding> {
    let mut without = env.clone();
    for variable in [CLOUDS_VARIABLE, SECURE_VARIABLE] {
        without.vars.remove(variable);
    }
    let Ok(without) = Config::load(&without) else { return Vec::new() };
    [
        (CLOUDS_VARIABLE, config.clouds_file(), without.clouds_file()),
        (SECURE_VARIABLE, config.secure_file(), without.secure_file()),
    ]
    .into_iter()
    .filter_map(|(variable, read, hidden)| {
        let (read, hidden) = (&read?.file, &hidden?.file);
        (read != hidden).then(|| {
            let detail = format!("{variable} has {} read, and not {}", read.display(), hidden.display());
            finding(CHECK, "", Found::Warn, detail).remedy(format!("unset {variable}"))
        })
    })
    .collect()
}
