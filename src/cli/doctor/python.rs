//! The plugin in each Python that has openstacksdk: whether it is there, which version, and whether it is the one that is
//! taken.

use super::{Helped, finding};
use crate::api::{Finding, Found};
use crate::cli::pythons::{self, PLUGIN, WithSdk};
use crate::cli::yaml::quoted;
use crate::clouds::Environment;

const OURS: &str = env!("CARGO_PKG_VERSION");
/// Whose `v3websso` is the one that entries for it mean.
const KEYSTONEAUTH: &str = "keystoneauth1";

pub(super) fn check(env: &Environment) -> Vec<Finding> {
    let (found, silent) = pythons::with_sdk(env);
    let mut findings: Vec<_> = found.iter().flat_map(of_one).collect();
    if found.is_empty() {
        findings.push(finding("plugin", "", Found::Skipped, "no Python on PATH has openstacksdk"));
    }
    findings.extend(silent.into_iter().map(|python| {
        finding("plugin", python.display().to_string(), Found::Unknown, "it did not answer within 5 s")
    }));
    findings
}

fn of_one(python: &WithSdk) -> Vec<Finding> {
    let subject = python.executable.display().to_string();
    let here = format!("Python {}, openstacksdk {}", python.python, python.sdk);
    let mut findings = vec![match &python.plugin {
        None => finding("plugin", &subject, Found::Warn, format!("{here}, without the plugin for v3broker"))
            .remedy(&python.install),
        Some(version) if is_older(version) => {
            let update = python.install.replacen("install ", "install --upgrade ", 1);
            let detail = format!("{here}, {PLUGIN} {version}: older than ksb {OURS}");
            finding("plugin", &subject, Found::Warn, detail).remedy(update)
        }
        Some(version) => finding("plugin", &subject, Found::Ok, format!("{here}, {PLUGIN} {version}")),
    }];
    let foreign = |owners: &[String], ours: &str| -> Vec<String> {
        owners.iter().filter(|owner| owner.to_lowercase().replace('_', "-") != ours).cloned().collect()
    };
    for (plugin, owners, ours, found) in [
        ("v3websso", &python.websso, KEYSTONEAUTH, Found::Warn),
        ("v3broker", &python.broker, PLUGIN, Found::Fail),
    ] {
        let others = foreign(owners, ours);
        if others.is_empty() {
            continue;
        }
        let others = others.join(", ");
        let detail = format!("{plugin} is also what {others} installs, and may be the one that is taken");
        let remedy = format!("{} -m pip uninstall {others}", quoted(&python.executable));
        findings.push(finding("shadowed-plugin", &subject, found, detail).remedy(remedy));
    }
    findings
}

/// By the numbers; what is not one says nothing.
fn is_older(version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> { text.split('.').map_while(|part| part.parse().ok()).collect() };
    numbers(version) < numbers(OURS)
}
