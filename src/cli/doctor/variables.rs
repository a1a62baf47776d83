//! Environment variables that win over clouds.yaml, or are mixed with it.

use super::{Helped, finding};
use crate::api::{Finding, Found};
use crate::cli::environment::IN_THE_WAY;
use crate::clouds::{Config, Environment};

/// They choose among entries, or say what an entry may leave open.
const HARMLESS: [&str; 8] = [
    "OS_CLOUD",
    "OS_CLOUD_NAME",
    "OS_CACERT",
    "OS_CERT",
    "OS_KEY",
    "OS_IDENTITY_API_VERSION",
    "OS_INTERFACE",
    "OS_REGION_NAME",
];

pub(super) fn check(env: &Environment, config: Option<&Config<'_>>) -> Vec<Finding> {
    const CHECK: &str = "environment";
    let mut findings = Vec::new();
    let set: Vec<_> =
        IN_THE_WAY.into_iter().filter(|name| !HARMLESS.contains(name) && env.get(name).is_some()).collect();
    if set.is_empty() {
        findings.push(finding(CHECK, "", Found::Ok, "no variable wins over clouds.yaml"));
    } else {
        // Only their names: some of them hold secrets.
        let names = set.join(" ");
        let detail = format!("tools take these before, or mixed with, what clouds.yaml says: {names}");
        findings.push(finding(CHECK, "", Found::Warn, detail).remedy(format!("unset {names}")));
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
