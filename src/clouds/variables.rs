//! `OS_*` variables beside a named entry.
//!
//! The `openstack` command puts them over an entry, openstacksdk does not. What is asked for within the entry's cloud
//! counts here: scope and interface. Who signs in where does not, and where the variables are of another cloud, as those
//! of an openrc file are, none of them does.

use serde_json::{Map, Value};
use url::Url;

use super::resolve::{OURS, Overrides};
use super::{Environment, Resolved};
use crate::model::{Cloud, Scope};

/// Sets what a variable asks for; false when its value asks for nothing.
type Ask = fn(&mut Overrides, String) -> bool;

/// Variables of a scope. Those of Keystone's version 2 come after those that replaced them.
const SCOPE: [(&str, Ask); 10] = [
    ("OS_PROJECT_ID", |asked, value| set(&mut asked.project_id, value)),
    ("OS_TENANT_ID", |asked, value| set(&mut asked.project_id, value)),
    ("OS_PROJECT_NAME", |asked, value| set(&mut asked.project_name, value)),
    ("OS_TENANT_NAME", |asked, value| set(&mut asked.project_name, value)),
    ("OS_PROJECT_DOMAIN_ID", |asked, value| set(&mut asked.project_domain_id, value)),
    ("OS_PROJECT_DOMAIN_NAME", |asked, value| set(&mut asked.project_domain_name, value)),
    ("OS_DOMAIN_ID", |asked, value| set(&mut asked.domain_id, value)),
    ("OS_DOMAIN_NAME", |asked, value| set(&mut asked.domain_name, value)),
    ("OS_TRUST_ID", |asked, value| set(&mut asked.trust_id, value)),
    ("OS_SYSTEM_SCOPE", |asked, value| {
        asked.system = value == "all";
        asked.system
    }),
];
/// Variables that choose an interface of the catalog: osc-lib's, and that of older clients and Terraform's provider.
const INTERFACE: [&str; 2] = ["OS_INTERFACE", "OS_ENDPOINT_TYPE"];
/// Variables of the region and of TLS, which count as in openstacksdk (`Config::merge`).
const CONNECTION: [&str; 4] = ["OS_REGION_NAME", "OS_CACERT", "OS_CERT", "OS_KEY"];
/// Variables of who signs in, how and where.
const IDENTITY: [&str; 19] = [
    "OS_APPLICATION_CREDENTIAL_ID",
    "OS_APPLICATION_CREDENTIAL_NAME",
    "OS_APPLICATION_CREDENTIAL_SECRET",
    "OS_AUTH_TOKEN",
    "OS_AUTH_TYPE",
    "OS_DEFAULT_DOMAIN",
    "OS_DEFAULT_DOMAIN_ID",
    "OS_DEFAULT_DOMAIN_NAME",
    "OS_IDENTITY_PROVIDER",
    "OS_PASSCODE",
    "OS_PASSWORD",
    "OS_PROTOCOL",
    "OS_TOKEN",
    "OS_USERID",
    "OS_USERNAME",
    "OS_USER_DOMAIN_ID",
    "OS_USER_DOMAIN_NAME",
    "OS_USER_ID",
    "OS_URL",
];

/// The effect of the variables beside an entry.
#[derive(Default)]
pub(super) struct Variables {
    /// The scope that they ask for.
    pub(super) scope: Overrides,
    /// The interface that they ask for.
    pub(super) interface: Option<String>,
    /// The ones that count.
    counted: Vec<&'static str>,
    /// The ones that do not.
    unused: Vec<&'static str>,
}

impl Variables {
    /// For an entry. The variables of a scope are not looked at where none is needed or the command line names it.
    pub(super) fn beside(
        env: &Environment,
        Resolved { cloud, scope: own, .. }: &Resolved,
        counts_as_scope: bool,
    ) -> Self {
        let is_set = |name: &&'static str| env.get(name).is_some();
        let says_the_same = |name: &&'static str| is_of_entry(name, env.get(name), cloud);
        let identity = IDENTITY.into_iter().filter(|name| is_set(name) && !says_the_same(name));
        if are_of_another_cloud(env, Some(cloud.auth_url.as_str())) {
            let scope = SCOPE.map(|(name, _)| name);
            let beside = scope.into_iter().chain(INTERFACE).chain(CONNECTION).filter(is_set);
            let unused = ["OS_AUTH_URL"].into_iter().chain(identity).chain(beside).collect();
            return Self { unused, ..Self::default() };
        }
        let mut found = Self { unused: identity.collect(), ..Self::default() };
        found.interface = INTERFACE.into_iter().find_map(|name| env.get(name)).map(str::to_owned);
        if !counts_as_scope {
            return found;
        }
        let names_project = SCOPE[..4].iter().any(|(name, _)| env.get(name).is_some());
        let is_for_a_project = names_project || matches!(own, Scope::Project(_));
        for (name, ask) in SCOPE {
            let Some(value) = env.get(name) else { continue };
            let can_count = match name {
                // A domain alone says nothing of which project.
                "OS_PROJECT_DOMAIN_ID" | "OS_PROJECT_DOMAIN_NAME" => names_project,
                // Where there is a project, openstacksdk takes it for the domain of that one (`_handle_domain_id`).
                "OS_DOMAIN_ID" | "OS_DOMAIN_NAME" => !is_for_a_project,
                _ => true,
            };
            let counts = can_count && ask(&mut found.scope, value.to_owned());
            if counts { &mut found.counted } else { &mut found.unused }.push(name);
        }
        if found.scope.kinds() > 1 {
            // Keystoneauth refuses them together. The entry says which one is meant.
            found.unused.append(&mut found.counted);
            found.scope = Overrides::default();
        }
        found
    }

    /// Whether a scope is asked for.
    pub(super) fn asks_for_scope(&self) -> bool {
        !self.counted.is_empty()
    }

    /// Puts the interface over the entry's settings.
    pub(super) fn settle(&self, settings: &mut Map<String, Value>) {
        if let Some(interface) = &self.interface {
            settings.insert("interface".into(), interface.as_str().into());
        }
    }

    /// One sentence for each that the user should know.
    pub(super) fn tell(&self, Resolved { cloud, scope, .. }: &Resolved) -> Vec<String> {
        let label = cloud.label();
        let counted = format!("{label}: {scope}, by {}", self.counted.join(", "));
        let unused = format!(
            "{label}: not used beside an entry of clouds.yaml: {}; what counts is {scope} at {}",
            self.unused.join(", "),
            cloud.auth_url
        );
        let all = [(&self.counted, counted), (&self.unused, unused)];
        all.into_iter().filter(|(names, _)| !names.is_empty()).map(|(_, line)| line).collect()
    }
}

/// False where an earlier variable has said it.
fn set(option: &mut Option<String>, value: String) -> bool {
    let is_new = option.is_none();
    option.get_or_insert(value);
    is_new
}

/// Whether the environment is of another Keystone than the entry, such as that of an openrc file.
pub(super) fn are_of_another_cloud(env: &Environment, auth_url: Option<&str>) -> bool {
    let entry = auth_url.and_then(|url| Url::parse(url).ok());
    let (Some(named), Some(entry)) = (env.get("OS_AUTH_URL"), entry) else { return false };
    !is_same(named, &entry)
}

/// Whether the variable only repeats the entry.
fn is_of_entry(name: &str, value: Option<&str>, cloud: &Cloud) -> bool {
    match name {
        "OS_AUTH_TYPE" => value == Some(OURS),
        "OS_IDENTITY_PROVIDER" => value == cloud.identity_provider.as_deref(),
        "OS_PROTOCOL" => value == Some(&cloud.protocol),
        "OS_USERNAME" => value == cloud.account.as_deref(),
        _ => false,
    }
}

/// Whether both addresses are of one Keystone: some end in its version, some do not.
fn is_same(url: &str, auth_url: &Url) -> bool {
    let root = |url: &Url| {
        let path = url.path().trim_end_matches('/').trim_end_matches("/v3").trim_end_matches('/').to_owned();
        (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default(), path)
    };
    Url::parse(url).is_ok_and(|url| root(&url) == root(auth_url))
}
