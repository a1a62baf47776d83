//! The variables that make every OpenStack client of any language use a lease, and nothing else that is set.

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde_json::{Map, Value};
use url::Url;

use super::lease_request::Grant;
use crate::api::S3Key;
use crate::clouds::Environment;
use crate::model::{DomainRef, ProjectRef, Scope, Tls};

/// Variables that some client prefers to a lease's, or mixes with them; by client:
/// keystoneauth, openstacksdk and the `openstack` command, gophercloud and the Terraform provider, ncw/swift (rclone,
/// restic), python-swiftclient.
pub(super) const IN_THE_WAY: [&str; 58] = [
    "OS_ACCESS_TOKEN",
    "OS_ALLOW_REAUTH",
    "OS_APPLICATION_CREDENTIAL_ID",
    "OS_APPLICATION_CREDENTIAL_NAME",
    "OS_APPLICATION_CREDENTIAL_SECRET",
    "OS_AUTH_METHODS",
    "OS_AUTH_PLUGIN",
    "OS_AUTH_STRATEGY",
    "OS_AUTH_SYSTEM",
    "OS_AUTH_TOKEN",
    "OS_AUTH_TYPE",
    "OS_AUTH_URL",
    "OS_AUTH_VERSION",
    "OS_CACERT",
    "OS_CERT",
    "OS_CLOUD",
    "OS_CLOUD_NAME",
    "OS_DEFAULT_DOMAIN",
    "OS_DEFAULT_DOMAIN_ID",
    "OS_DEFAULT_DOMAIN_NAME",
    "OS_DELAYED_AUTH",
    "OS_DOMAIN_ID",
    "OS_DOMAIN_NAME",
    "OS_ENDPOINT",
    "OS_ENDPOINT_TYPE",
    "OS_IDENTITY_API_VERSION",
    "OS_IDENTITY_PROVIDER",
    "OS_INSECURE",
    "OS_INTERFACE",
    "OS_KEY",
    "OS_PASSCODE",
    "OS_PASSWORD",
    "OS_PROFILE",
    "OS_PROJECT_DOMAIN_ID",
    "OS_PROJECT_DOMAIN_NAME",
    "OS_PROJECT_ID",
    "OS_PROJECT_NAME",
    "OS_PROTOCOL",
    "OS_REGION_NAME",
    "OS_SERVICE_TOKEN",
    "OS_STORAGE_URL",
    "OS_SWAUTH",
    "OS_SYSTEM_SCOPE",
    "OS_TENANT_ID",
    "OS_TENANT_NAME",
    "OS_TOKEN",
    "OS_TRUST_ID",
    "OS_URL",
    "OS_USERID",
    "OS_USERNAME",
    "OS_USER_DOMAIN_ID",
    "OS_USER_DOMAIN_NAME",
    "OS_USER_ID",
    "OS_VERIFY",
    "ST_AUTH",
    "ST_AUTH_VERSION",
    "ST_KEY",
    "ST_USER",
];

/// The same for S3.
const IN_THE_WAY_OF_S3: [&str; 3] = ["AWS_PROFILE", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"];

/// Where the facade is: no proxy leads there.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

/// How a client is to show the lease.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Shape {
    /// As an application credential: nearly every client
    #[default]
    Appcred,
    /// As a user's password: openstack4j, juju, whatever is older than application credentials
    Password,
    /// As a token that never ends: clients that take nothing else
    Token,
}

impl Shape {
    fn auth_type(self) -> &'static str {
        match self {
            Self::Appcred => "v3applicationcredential",
            Self::Password => "v3password",
            Self::Token => "v3token",
        }
    }

    /// Whether a client has to name the scope, and for many of them by the project's id.
    pub(super) fn names_scope(self) -> bool {
        self != Self::Appcred
    }
}

/// What is to be different in an environment. Has no `Debug`, as it holds secrets.
#[derive(Clone, Default)]
pub(super) struct Changes {
    set: Vec<(String, String)>,
    removed: BTreeSet<String>,
}

impl Changes {
    /// Gives a variable a value.
    pub(super) fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.set.push((name.into(), value.into()));
    }

    /// Takes a variable away, unless it gets a value.
    pub(super) fn remove(&mut self, name: impl Into<String>) {
        self.removed.insert(name.into());
    }

    /// Takes a variable away, also one that got a value.
    pub(super) fn take_back(&mut self, name: &str) {
        self.set.retain(|(set, _)| set != name);
        self.remove(name);
    }

    /// Adds others, which win.
    pub(super) fn add(&mut self, others: Self) {
        self.set.extend(others.set);
        self.removed.extend(others.removed);
    }

    /// The variables that get a value.
    pub(super) fn set(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The variables that go.
    pub(super) fn gone(&self) -> impl Iterator<Item = &str> {
        let is_set = |name: &&str| self.set.iter().any(|(set, _)| set == name);
        self.removed.iter().map(String::as_str).filter(move |name| !is_set(name))
    }
}

/// For clouds that are chosen by name. One of them may stay the one that is meant where none is named.
pub(super) fn of_several(grants: &[Grant], env: &Environment) -> Changes {
    let mut changes = cleared(env);
    if let Some(name) = env.get("OS_CLOUD")
        && grants.iter().any(|grant| grant.resolved.cloud.label() == name)
    {
        changes.insert("OS_CLOUD", name);
    }
    changes
}

/// Nothing of another identity is left, and no proxy stands before the facade.
fn cleared(env: &Environment) -> Changes {
    let mut changes = Changes::default();
    for name in IN_THE_WAY {
        changes.remove(name);
    }
    // One of the two that is missing takes over the other's exceptions: it would hide them.
    for (name, other) in [("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")] {
        let before = env.get(name).or_else(|| env.get(other)).unwrap_or_default();
        changes.insert(name, without_proxy(before));
    }
    changes
}

/// Where the environment has programs ask a proxy for the facade: the command that helps.
pub(super) fn no_proxy_for_loopback(env: &Environment) -> Option<String> {
    let facade = Url::parse("http://127.0.0.1/v3").ok()?;
    env.proxy_for(&facade)?;
    let before = env.get("no_proxy").or_else(|| env.get("NO_PROXY")).unwrap_or_default();
    let hosts = without_proxy(before);
    let hosts = shlex::try_quote(&hosts).ok()?.into_owned();
    Some(format!("export NO_PROXY={hosts} no_proxy={hosts}"))
}

fn without_proxy(before: &str) -> String {
    let mut hosts: Vec<_> = before.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
    if !hosts.contains(&"*") {
        let missing: Vec<_> = LOOPBACK.into_iter().filter(|host| !hosts.contains(host)).collect();
        hosts.extend(missing);
    }
    hosts.join(",")
}

/// The one set of variables that fits them all.
pub(super) fn of_lease(grant: &Grant, shape: Shape, env: &Environment) -> Changes {
    let mut changes = cleared(env);
    for (key, value) in authentication(grant, shape) {
        changes.insert(format!("OS_{}", key.to_uppercase()), value);
    }
    changes.insert("OS_AUTH_TYPE", shape.auth_type());
    changes.insert("OS_IDENTITY_API_VERSION", "3");
    if let Some(region) = &grant.resolved.cloud.region {
        changes.insert("OS_REGION_NAME", region);
    }
    let interface = interface(&grant.resolved.settings);
    // Terraform's provider, python-swiftclient and ncw/swift know the second name only.
    changes.insert("OS_INTERFACE", interface);
    changes.insert("OS_ENDPOINT_TYPE", interface);
    for (key, path) in certificates(&grant.resolved.cloud.tls) {
        changes.insert(format!("OS_{}", key.to_uppercase()), path);
    }
    if !grant.resolved.cloud.tls.verify {
        changes.insert("OS_INSECURE", "true");
    }
    changes
}

/// An entry of clouds.yaml that uses the lease, with all that the cloud's own entry says besides how to sign in.
pub(super) fn entry(grant: &Grant, shape: Shape) -> Value {
    let mut entry = Map::new();
    entry.insert("auth_type".into(), shape.auth_type().into());
    let auth = authentication(grant, shape).into_iter().map(|(key, value)| (key.to_owned(), value.into()));
    entry.insert("auth".into(), Value::Object(auth.collect()));
    entry.extend(grant.resolved.settings.clone());
    entry.insert("identity_api_version".into(), "3".into());
    for (key, path) in certificates(&grant.resolved.cloud.tls) {
        entry.insert(key.into(), path.into());
    }
    entry.insert("verify".into(), grant.resolved.cloud.tls.verify.into());
    Value::Object(entry)
}

/// The variables of an EC2 credential.
pub(super) fn of_s3(key: &S3Key, tls: &Tls, env: &Environment) -> Changes {
    let mut changes = Changes::default();
    for name in IN_THE_WAY_OF_S3 {
        changes.remove(name);
    }
    changes.insert("AWS_ACCESS_KEY_ID", &key.access);
    changes.insert("AWS_SECRET_ACCESS_KEY", key.secret.expose());
    changes.insert("AWS_ENDPOINT_URL", &key.endpoint);
    changes.insert("AWS_ENDPOINT_URL_S3", &key.endpoint);
    // Swift and Ceph take any region for theirs, the tools insist on one.
    let region = env.get("AWS_REGION").or_else(|| env.get("AWS_DEFAULT_REGION")).unwrap_or("us-east-1");
    changes.insert("AWS_REGION", region);
    changes.insert("AWS_DEFAULT_REGION", region);
    // Without it a machine in a cloud is asked for a role of its own.
    changes.insert("AWS_EC2_METADATA_DISABLED", "true");
    if let Some(file) = &tls.ca_file {
        changes.insert("AWS_CA_BUNDLE", file.display().to_string());
    }
    changes
}

/// What rclone makes a remote of, under the cloud's name: unlike everybody else it reads none of `OS_*` by itself.
pub(super) fn of_rclone(grant: &Grant) -> Changes {
    let name: String = grant.resolved.cloud.label().chars().map(in_name).collect();
    let mut changes = Changes::default();
    let mut option =
        |option: &str, value: &str| changes.insert(format!("RCLONE_CONFIG_{name}_{option}"), value);
    option("TYPE", "swift");
    option("ENV_AUTH", "false");
    option("AUTH", &grant.reply.auth_url);
    option("AUTH_VERSION", "3");
    option("APPLICATION_CREDENTIAL_ID", &grant.reply.lease.id);
    option("APPLICATION_CREDENTIAL_SECRET", grant.reply.secret.expose());
    if let Some(region) = &grant.resolved.cloud.region {
        option("REGION", region);
    }
    option("ENDPOINT_TYPE", interface(&grant.resolved.settings));
    // Of all remotes, as there is none for one of them.
    if let Some(file) = &grant.resolved.cloud.tls.ca_file {
        changes.insert("RCLONE_CA_CERT", file.display().to_string());
    }
    changes
}

/// As a part of a variable's name.
fn in_name(char: char) -> char {
    if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' }
}

/// The catalog's interface that the entry chooses, without the `URL` that some write after it.
fn interface(settings: &Map<String, Value>) -> &str {
    let chosen = match settings.get("interface") {
        Some(Value::Array(several)) => several.first(),
        one => one,
    };
    let chosen = chosen.and_then(Value::as_str).unwrap_or_default();
    match chosen.strip_suffix("URL").unwrap_or(chosen) {
        interface @ ("internal" | "admin") => interface,
        _ => "public",
    }
}

fn certificates(tls: &Tls) -> impl Iterator<Item = (&'static str, String)> {
    let files = [("cacert", &tls.ca_file), ("cert", &tls.cert_file), ("key", &tls.key_file)];
    files.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?.display().to_string())))
}

/// What stands under `auth` in clouds.yaml, and after `OS_` in the environment.
fn authentication(grant: &Grant, shape: Shape) -> Vec<(&'static str, String)> {
    let reply = &grant.reply;
    let mut options = vec![("auth_url", reply.auth_url.clone())];
    let secret = || reply.secret.expose().to_owned();
    match shape {
        Shape::Appcred => options.extend([
            ("application_credential_id", reply.lease.id.clone()),
            ("application_credential_secret", secret()),
        ]),
        // The name alone: gophercloud refuses a user who has an id as well.
        Shape::Password => options.extend([
            ("username", reply.lease.id.clone()),
            ("password", secret()),
            ("user_domain_name", "Default".to_owned()),
        ]),
        Shape::Token => options.push(("token", reply.handle.expose().to_owned())),
    }
    if shape.names_scope() {
        options.extend(scope(&grant.resolved.scope, grant.project_id.as_deref()));
    }
    options
}

fn scope(scope: &Scope, project_id: Option<&str>) -> Vec<(&'static str, String)> {
    let domain = |domain: &DomainRef, id: &'static str, name: &'static str| match domain {
        DomainRef { id: Some(value), .. } => Some((id, value.clone())),
        DomainRef { name: Some(value), .. } => Some((name, value.clone())),
        DomainRef { id: None, name: None } => None,
    };
    match (scope, project_id) {
        (Scope::Project(_), Some(id)) => vec![("project_id", id.to_owned())],
        (Scope::Project(ProjectRef { name, domain: of, .. }), None) => {
            let of = of.as_ref().and_then(|of| domain(of, "project_domain_id", "project_domain_name"));
            name.iter().map(|name| ("project_name", name.clone())).chain(of).collect()
        }
        (Scope::Domain(of), _) => domain(of, "domain_id", "domain_name").into_iter().collect(),
        (Scope::System { .. }, _) => vec![("system_scope", "all".to_owned())],
        (Scope::Trust { id }, _) => vec![("trust_id", id.clone())],
        (Scope::Unscoped, _) => vec![],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::clouds::Resolved;

    fn grant(scope: Scope, settings: Value) -> Grant {
        let Value::Object(settings) = settings else { panic!("no mapping") };
        let cloud = json!({
            "name": "demo-1", "auth_url": "https://keystone.example.org/v3", "protocol": "openid", "region": "one",
            "tls": {"verify": true, "ca_file": "/etc/lab.pem"},
        });
        let reply = json!({
            "lease": {
                "id": "0123", "name": "demo", "cloud": "demo-1", "scope": "project demo", "confined": false,
                "unattended": false, "made_at": "2026-11-01T00:00:00Z",
            },
            "secret": "hush", "handle": "0123.hush", "auth_url": "http://127.0.0.1:21000/v3",
        });
        let resolved = Resolved {
            cloud: serde_json::from_value(cloud).unwrap(),
            scope,
            auth_type: "v3broker".into(),
            warnings: vec![],
            merged: Value::Null,
            settings,
        };
        Grant { resolved, reply: serde_json::from_value(reply).unwrap(), project_id: None }
    }

    fn environment(vars: &[(&str, &str)]) -> Environment {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment { vars, ..Environment::default() }
    }

    fn set(changes: &Changes) -> BTreeMap<&str, &str> {
        changes.set().collect()
    }

    fn demo() -> Scope {
        let domain = DomainRef { name: Some("lab".into()), id: None };
        Scope::Project(ProjectRef { id: None, name: Some("demo".into()), domain: Some(domain) })
    }

    #[test]
    fn the_list_is_sorted_and_names_nothing_twice() {
        assert!(IN_THE_WAY.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn a_proxy_before_the_facade_is_told_with_all_exceptions() {
        type Row<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);
        let rows: &[Row<'_>] = &[
            (&[], None),
            (&[("https_proxy", "http://proxy:1")], None),
            (&[("http_proxy", "http://proxy:1")], Some("127.0.0.1,localhost,::1")),
            (&[("HTTP_PROXY", "proxy:1")], Some("127.0.0.1,localhost,::1")),
            (&[("ALL_PROXY", "socks5://proxy:1")], Some("127.0.0.1,localhost,::1")),
            (&[("http_proxy", "http://proxy:1"), ("NO_PROXY", "corp")], Some("corp,127.0.0.1,localhost,::1")),
            (&[("http_proxy", "http://proxy:1"), ("NO_PROXY", "corp,127.0.0.1")], None),
            (&[("http_proxy", "http://proxy:1"), ("NO_PROXY", "127.0.0.0/8")], None),
            (&[("http_proxy", "http://proxy:1"), ("no_proxy", "*")], None),
            (&[("http_proxy", "http://proxy:1"), ("no_proxy", "localhost")], Some("localhost,127.0.0.1,::1")),
        ];
        for (vars, expected) in rows {
            let expected = expected.map(|hosts| format!("export NO_PROXY='{hosts}' no_proxy='{hosts}'"));
            assert_eq!(no_proxy_for_loopback(&environment(vars)), expected, "{vars:?}");
        }
    }

    #[test]
    fn an_application_credential_names_no_scope() {
        let grant = grant(demo(), json!({"interface": "internalURL"}));
        let changes = of_lease(&grant, Shape::Appcred, &environment(&[("NO_PROXY", "corp.example, ::1")]));
        let expected = [
            ("NO_PROXY", "corp.example,::1,127.0.0.1,localhost"),
            ("OS_APPLICATION_CREDENTIAL_ID", "0123"),
            ("OS_APPLICATION_CREDENTIAL_SECRET", "hush"),
            ("OS_AUTH_TYPE", "v3applicationcredential"),
            ("OS_AUTH_URL", "http://127.0.0.1:21000/v3"),
            ("OS_CACERT", "/etc/lab.pem"),
            ("OS_ENDPOINT_TYPE", "internal"),
            ("OS_IDENTITY_API_VERSION", "3"),
            ("OS_INTERFACE", "internal"),
            ("OS_REGION_NAME", "one"),
            ("no_proxy", "corp.example,::1,127.0.0.1,localhost"),
        ];
        assert_eq!(set(&changes), BTreeMap::from(expected));
        let gone: Vec<_> = changes.gone().collect();
        for name in ["OS_CLOUD", "OS_TOKEN", "OS_PASSWORD", "OS_PROJECT_NAME", "OS_TENANT_ID", "ST_AUTH"] {
            assert!(gone.contains(&name), "{name}");
        }
        assert!(!gone.contains(&"OS_REGION_NAME"));
    }

    #[test]
    fn the_other_shapes_name_the_scope_by_id_where_that_is_known() {
        let mut grant = grant(demo(), json!({}));
        let by_name = of_lease(&grant, Shape::Password, &environment(&[]));
        let by_name = set(&by_name);
        assert_eq!((by_name["OS_USERNAME"], by_name["OS_PASSWORD"]), ("0123", "hush"));
        assert_eq!((by_name["OS_PROJECT_NAME"], by_name["OS_PROJECT_DOMAIN_NAME"]), ("demo", "lab"));
        grant.project_id = Some("abc".into());
        let by_id = of_lease(&grant, Shape::Token, &environment(&[]));
        let gone: Vec<_> = by_id.gone().collect();
        assert!(gone.contains(&"OS_PROJECT_NAME") && gone.contains(&"OS_USERNAME"));
        let by_id = set(&by_id);
        assert_eq!((by_id["OS_TOKEN"], by_id["OS_PROJECT_ID"]), ("0123.hush", "abc"));
        grant.resolved.scope = Scope::System { all: true };
        assert_eq!(set(&of_lease(&grant, Shape::Token, &environment(&[])))["OS_SYSTEM_SCOPE"], "all");
    }

    #[test]
    fn an_entry_keeps_what_is_not_about_signing_in() {
        let settings = json!({
            "region_name": "one", "interface": "internal", "compute_api_version": "2.90",
            "image_endpoint_override": "https://image.example.org",
        });
        let entry = entry(&grant(demo(), settings), Shape::Appcred);
        let expected = json!({
            "auth_type": "v3applicationcredential",
            "auth": {
                "auth_url": "http://127.0.0.1:21000/v3", "application_credential_id": "0123",
                "application_credential_secret": "hush",
            },
            "region_name": "one", "interface": "internal", "compute_api_version": "2.90",
            "image_endpoint_override": "https://image.example.org", "identity_api_version": "3",
            "cacert": "/etc/lab.pem", "verify": true,
        });
        assert_eq!(entry, expected);
    }

    #[test]
    fn of_several_clouds_none_is_in_the_environment() {
        let grants = [grant(demo(), json!({}))];
        let env = environment(&[("OS_CLOUD", "other"), ("no_proxy", "*")]);
        assert_eq!(set(&of_several(&grants, &env)), BTreeMap::from([("NO_PROXY", "*"), ("no_proxy", "*")]));
        let env = environment(&[("OS_CLOUD", "demo-1")]);
        assert_eq!(set(&of_several(&grants, &env))["OS_CLOUD"], "demo-1");
    }

    #[test]
    fn keys_for_s3_keep_a_region_that_is_set() {
        let json = json!({"access": "AKI", "secret": "hush", "endpoint": "https://swift.example.org"});
        let key: S3Key = serde_json::from_value(json).unwrap();
        let without = of_s3(&key, &Tls::default(), &environment(&[]));
        assert_eq!(set(&without)["AWS_REGION"], "us-east-1");
        assert!(!set(&without).contains_key("AWS_CA_BUNDLE"));
        let with = of_s3(&key, &Tls::default(), &environment(&[("AWS_DEFAULT_REGION", "here")]));
        assert_eq!((set(&with)["AWS_REGION"], set(&with)["AWS_DEFAULT_REGION"]), ("here", "here"));
        assert_eq!(with.gone().count(), 3);
    }

    #[test]
    fn a_remote_of_rclone_has_the_cloud_s_name_as_far_as_variables_can() {
        let changes = of_rclone(&grant(demo(), json!({})));
        let set = set(&changes);
        assert_eq!(set["RCLONE_CONFIG_DEMO_1_TYPE"], "swift");
        assert_eq!(set["RCLONE_CONFIG_DEMO_1_APPLICATION_CREDENTIAL_SECRET"], "hush");
        assert_eq!(set["RCLONE_CA_CERT"], "/etc/lab.pem");
        let of_the_remote = set.keys().filter(|name| name.starts_with("RCLONE_CONFIG_DEMO_1_"));
        assert_eq!(of_the_remote.count(), set.len() - 1);
    }
}
