//! From a merged entry to what the broker is told: [`Cloud`] and [`Scope`].

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use url::Url;

use super::merge::{self, Dict, Entry, text};
use super::{Config, find, proxy};
use crate::error::{Code, Error, Result};
use crate::model::{Cloud, DomainRef, ProjectRef, Scope, SignInOptions, Source, Tls, Way};

/// What the command line says over the entry.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The account label.
    pub account: Option<String>,
    /// The region, which must be known where the entry lists any; else `OS_REGION_NAME`.
    pub region: Option<String>,
    /// A project by id.
    pub project_id: Option<String>,
    /// A project by name, in the entry's project domain unless one is named here.
    pub project_name: Option<String>,
    /// The project's domain by id.
    pub project_domain_id: Option<String>,
    /// The project's domain by name.
    pub project_domain_name: Option<String>,
    /// A domain by id.
    pub domain_id: Option<String>,
    /// A domain by name.
    pub domain_name: Option<String>,
    /// A trust.
    pub trust_id: Option<String>,
    /// The whole deployment.
    pub system: bool,
    /// No scope at all.
    pub unscoped: bool,
}

/// An entry, ready for the broker.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The cloud.
    pub cloud: Cloud,
    /// The scope that the entry or the command line asks for.
    pub scope: Scope,
    /// The entry's own `auth_type`.
    pub auth_type: String,
    /// What a person should know, each a sentence.
    pub warnings: Vec<String>,
    /// The merged entry, secrets masked.
    pub merged: Value,
}

/// The plugins whose entries we understand; both take the same options.
const AUTH_TYPES: [&str; 2] = ["v3broker", "v3websso"];

/// Variables that `openstack` puts over any entry and we, like openstacksdk, do not.
const NOT_OURS: [&str; 16] = [
    "OS_AUTH_TYPE",
    "OS_AUTH_URL",
    "OS_IDENTITY_PROVIDER",
    "OS_PROTOCOL",
    "OS_USERNAME",
    "OS_PROJECT_ID",
    "OS_PROJECT_NAME",
    "OS_PROJECT_DOMAIN_ID",
    "OS_PROJECT_DOMAIN_NAME",
    "OS_TENANT_ID",
    "OS_TENANT_NAME",
    "OS_DOMAIN_ID",
    "OS_DOMAIN_NAME",
    "OS_SYSTEM_SCOPE",
    "OS_TRUST_ID",
    "OS_INSECURE",
];

/// An entry with its name, and where its parts came from.
struct Named {
    name: String,
    entry: Entry,
    source: Option<Source>,
}

impl Config<'_> {
    /// Resolves the entry `name`, or the default one.
    pub fn resolve(&self, name: Option<&str>, overrides: &Overrides) -> Result<Resolved> {
        let resolved = match name.or_else(|| self.default_name()) {
            Some(name) => self.resolve_named(name, overrides),
            None => Err(self.nothing_chosen()),
        };
        resolved.map_err(|mut error| {
            for note in &self.notes {
                error.detail = format!("{}; {note}", error.detail);
            }
            error
        })
    }

    /// The `auth_type` of an entry, whatever it is.
    pub fn auth_type(&self, name: &str) -> Result<String> {
        self.merge(name, None).map(|named| auth_type(&named.entry))
    }

    fn resolve_named(&self, name: &str, overrides: &Overrides) -> Result<Resolved> {
        let region = overrides.region.as_deref().or_else(|| self.env.get("OS_REGION_NAME"));
        let Named { name, entry, source } = self.follow(name, region, &mut Vec::new())?;
        let bad = |why: String| self.bad(&name, &why);
        let mut warnings = self.notes.clone();
        warnings.extend(entry.notes.iter().cloned());
        let unknown = unknown_keys(&entry);
        if name != self.environment_name && !unknown.is_empty() {
            warnings.push(format!("{} of cloud {name} is unknown to `v3broker`", unknown.join(", ")));
        }
        self.warn_of_environment(&name, &mut warnings);
        let option = |key: &str| entry.auth.get(key).and_then(text);
        let missing = |key: &str, example: &str| {
            let unknown =
                if unknown.is_empty() { String::new() } else { format!(" (but {})", unknown.join(", ")) };
            bad(format!("no `{key}` under `auth`{unknown}")).remedy(format!("add `{key}: {example}` there"))
        };

        let auth_url =
            option("auth_url").ok_or_else(|| missing("auth_url", "https://keystone.example.org/v3"))?;
        let auth_url = address("auth_url", &auth_url).map_err(bad)?;
        let protocol = option("protocol").ok_or_else(|| missing("protocol", "openid"))?;
        let cloud = Cloud {
            identity_provider: option("identity_provider"),
            protocol,
            account: overrides.account.clone().or_else(|| option("username")),
            region: entry.config.get("region_name").and_then(text),
            tls: self.tls(&entry.config, &mut warnings).map_err(bad)?,
            proxy: proxy::of(self.env, &auth_url),
            sign_in: sign_in(option).map_err(bad)?,
            logout_url: option("logout_url")
                .map(|url| address("logout_url", &url))
                .transpose()
                .map_err(bad)?,
            source,
            name: Some(name.clone()),
            auth_url,
        };
        let scope = scope(&entry.auth, overrides).map_err(bad)?;
        Ok(Resolved { cloud, scope, auth_type: auth_type(&entry), warnings, merged: masked(entry) })
    }

    /// The entry itself, or the one that its `cloud` refers to, with its own scope, account and region.
    fn follow(&self, name: &str, region: Option<&str>, seen: &mut Vec<String>) -> Result<Named> {
        let mut own = self.merge(name, region)?;
        self.check_auth_type(&own)?;
        let Some(other) = own.entry.auth.shift_remove("cloud").as_ref().and_then(text) else {
            return Ok(own);
        };
        seen.push(name.to_owned());
        if seen.contains(&other) {
            let circle = seen.join(" → ");
            return Err(self.bad(name, &format!("`cloud` leads round in a circle: {circle} → {other}")));
        }
        let mut target = self.follow(&other, region, seen)?;
        let auth = &mut target.entry.auth;
        if merge::SCOPE_OPTIONS.iter().any(|key| own.entry.auth.contains_key(*key)) {
            auth.retain(|key, _| !merge::SCOPE_OPTIONS.contains(&key.as_str()));
        }
        let (ours, ignored): (Dict, Dict) = own
            .entry
            .auth
            .into_iter()
            .partition(|(key, _)| key == "username" || merge::SCOPE_OPTIONS.contains(&key.as_str()));
        auth.extend(ours);
        if let Some(region) = own.entry.config.get("region_name").filter(|region| text(region).is_some()) {
            target.entry.config.insert("region_name".into(), region.clone());
        }
        target.entry.notes.extend(own.entry.notes);
        target.entry.notes.extend(
            ignored
                .keys()
                .map(|key| format!("`{key}` of cloud {name} is not used: it takes that of cloud {other}")),
        );
        Ok(target)
    }

    fn merge(&self, name: &str, region: Option<&str>) -> Result<Named> {
        let raw = match self.entries.get(name) {
            Some(Value::Object(raw)) => raw,
            Some(_) => return Err(self.bad(name, "the entry is not a mapping")),
            None => return Err(self.unknown(name)),
        };
        let of_environment = name == self.environment_name;
        let asked: Vec<_> = [("cacert", "OS_CACERT"), ("cert", "OS_CERT"), ("key", "OS_KEY")]
            .into_iter()
            .filter(|_| !of_environment)
            .filter_map(|(key, variable)| Some((key, self.env.get(variable)?)))
            .collect();
        let mut notes = Vec::new();
        let profile = self.profile(raw, &mut notes);
        let layer = profile.as_ref().map(|(dict, _)| dict);
        let mut entry = merge::entry(raw, layer, region, &asked).map_err(|why| self.bad(name, &why))?;
        entry.notes.extend(notes);

        // Whichever file had a say may have been put into the current folder by someone else.
        let secure = self.secure_file.as_ref().filter(|_| self.in_secure.iter().any(|entry| entry == name));
        let files = [self.clouds_file.as_ref(), secure, profile.as_ref().map(|(_, source)| source)];
        let mut files = files.into_iter().flatten().filter(|_| !of_environment);
        let first = files.clone().next();
        let source = files.find(|file| file.current_folder).or(first).cloned();
        Ok(Named { name: name.to_owned(), entry, source })
    }

    /// The vendor profile that the entry names (`_expand_vendor_profile`): ours come from clouds-public.yaml alone.
    fn profile(&self, raw: &Dict, notes: &mut Vec<String>) -> Option<(Dict, Source)> {
        let name = raw.get("profile").or_else(|| raw.get("cloud")).and_then(text)?;
        if name == self.environment_name {
            return None;
        }
        if let Some(mut found) = find::first(self.env, "clouds-public", None, notes)
            && let Some(Value::Object(profile)) =
                found.content.pointer_mut("/public-clouds").and_then(|all| all.get_mut(&name))
        {
            return Some((std::mem::take(profile), found.source));
        }
        notes.push(format!(
            "profile `{name}` is in no clouds-public.yaml; those built into openstacksdk and those it fetches from a \
             URL are not known here: write its `auth_url` into the entry"
        ));
        None
    }

    fn check_auth_type(&self, named: &Named) -> Result<()> {
        let auth_type = auth_type(&named.entry);
        if AUTH_TYPES.contains(&auth_type.as_str()) {
            return Ok(());
        }
        let error =
            self.bad(&named.name, &format!("auth_type `{auth_type}` is not one that ksb signs in for"));
        Err(error.remedy(if named.entry.auth.contains_key("protocol") {
            format!("ksb adopt {}", named.name)
        } else {
            "set `auth_type: v3broker`, and `identity_provider` and `protocol` under `auth`".into()
        }))
    }

    /// `get_requests_verify_args`, and what requests itself adds to it.
    fn tls(&self, config: &Dict, warnings: &mut Vec<String>) -> Result<Tls, String> {
        let path = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(path)) if path.is_empty() => Ok(None),
            Some(Value::String(path)) => Ok(Some(self.absolute(&expand_home(path, &self.env.home)))),
            Some(_) => Err(format!("`{key}` is not a path")),
        };
        let insecure = match config.get("insecure") {
            Some(Value::Bool(insecure)) => *insecure,
            Some(Value::String(insecure)) => insecure.eq_ignore_ascii_case("true"),
            _ => false,
        };
        // Python takes any text for true and requests then takes it for a CA bundle; `true` and `false` in
        // quotes, or in OS_VERIFY, are no files.
        let (checked, mut ca_file) = match config.get("verify") {
            Some(Value::Bool(verify)) => (*verify, None),
            Some(Value::String(verify)) if verify.eq_ignore_ascii_case("true") => (true, None),
            Some(Value::String(verify)) if verify.eq_ignore_ascii_case("false") => (false, None),
            Some(Value::String(bundle)) if !bundle.is_empty() => {
                (true, Some(self.absolute(Path::new(bundle))))
            }
            _ => (true, None),
        };
        let verify = checked && !insecure;
        let cacert = path("cacert")?;
        // An empty `verify:` verifies, but makes the SDK overlook `cacert`.
        if verify && config.get("verify") != Some(&Value::Null) {
            ca_file = cacert.or(ca_file);
        } else if cacert.is_some() {
            warnings.push("`cacert` is not used, because `verify` or `insecure` beside it says so".into());
        }
        let bundle = || self.env.get("REQUESTS_CA_BUNDLE").or_else(|| self.env.get("CURL_CA_BUNDLE"));
        let ca_file = if verify {
            ca_file.or_else(|| bundle().map(|path| self.absolute(Path::new(path))))
        } else {
            None
        };
        let cert_file = path("cert")?;
        let key_file = path("key")?.filter(|_| cert_file.is_some());
        Ok(Tls { verify, ca_file, cert_file, key_file })
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.env.current_dir.join(path).components().collect()
    }

    fn warn_of_environment(&self, name: &str, warnings: &mut Vec<String>) {
        if name == self.environment_name {
            return;
        }
        let set: Vec<_> = NOT_OURS.into_iter().filter(|variable| self.env.get(variable).is_some()).collect();
        if !set.is_empty() {
            warnings.push(format!(
                "{} in the environment: not used for cloud {name} by ksb and openstacksdk, but by the `openstack` command",
                set.join(", ")
            ));
        }
    }

    fn bad(&self, name: &str, why: &str) -> Error {
        Error::new(Code::InvalidConfig, format!("{}: {why}", self.place(name))).cloud(name)
    }

    /// Where an entry is written.
    fn place(&self, name: &str) -> String {
        if name == self.environment_name {
            return "OS_* variables".into();
        }
        let secure = self.secure_file.as_ref().filter(|_| self.in_secure.iter().any(|entry| entry == name));
        let files: Vec<_> =
            self.clouds_file.iter().chain(secure).map(|source| source.file.display().to_string()).collect();
        files.join(" with ")
    }

    fn unknown(&self, name: &str) -> Error {
        let what = match (&self.clouds_file, self.known()) {
            (_, Some(known)) => format!("no cloud of this name, only {known}"),
            (Some(file), None) => format!("no cloud of this name: {} has no entries", file.file.display()),
            (None, None) => "no cloud of this name, and no clouds.yaml".into(),
        };
        // A file that was skipped may well have it.
        let code = if self.notes.is_empty() { Code::UnknownCloud } else { Code::InvalidConfig };
        Error::new(code, what).cloud(name).remedy(self.where_to_write())
    }

    fn nothing_chosen(&self) -> Error {
        match self.known() {
            Some(known) => {
                Error::new(Code::UnknownCloud, format!("no cloud is named, and there are several: {known}"))
                    .remedy("name one of them, or set OS_CLOUD")
            }
            None => Error::new(Code::UnknownCloud, "no cloud is named, and no clouds.yaml has any")
                .remedy(self.where_to_write()),
        }
    }

    fn known(&self) -> Option<String> {
        let names: Vec<_> = self.names().collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    fn where_to_write(&self) -> String {
        match &self.clouds_file {
            Some(file) => format!("add it to {}", file.file.display()),
            None => format!("write {}", find::folders(self.env)[1].join("clouds.yaml").display()),
        }
    }
}

fn auth_type(entry: &Entry) -> String {
    entry.config.get("auth_type").and_then(text).unwrap_or_else(|| "none".into())
}

/// A path whose leading `~` stands for the home folder, as `os.path.expanduser` has it.
fn expand_home(path: &str, home: &Path) -> PathBuf {
    match path.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => path.into(),
    }
}

/// An http(s) URL. Its text is not repeated: it might carry a password.
fn address(key: &str, value: &str) -> Result<Url, String> {
    let url =
        Url::parse(value).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    url.ok_or_else(|| format!("`{key}` is not an http or https address"))
}

fn sign_in(option: impl Fn(&str) -> Option<String>) -> Result<SignInOptions, String> {
    let mut options = SignInOptions::default();
    match option("sign_in").as_deref() {
        None | Some("websso") => options.way = Way::Websso,
        Some(other) => return Err(format!("`sign_in: {other}` is not a way to sign in; there is `websso`")),
    }
    if let Some(host) = option("redirect_host") {
        options.redirect_host = host;
    }
    if let Some(port) = option("redirect_port") {
        let port = port.parse().ok().filter(|port| *port > 0);
        options.redirect_port = port.ok_or("`redirect_port` is not a port number")?;
    }
    if let Some(timeout) = option("login_timeout") {
        let seconds =
            timeout.parse().ok().map(|seconds: f64| seconds.ceil()).filter(|s| (1.0..=86_400.0).contains(s));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between a second and a day"
        )]
        let seconds = seconds.map(|seconds| seconds as u64);
        options.timeout = seconds.ok_or("`login_timeout` is not a number of seconds up to a day")?;
    }
    Ok(options)
}

/// The scope: what the command line names, else the entry's, of which there can be only one kind.
fn scope(auth: &Dict, overrides: &Overrides) -> Result<Scope, String> {
    let option = |key: &str| auth.get(key).and_then(text);
    // Of an id and a name keystoneauth takes the id.
    let domain = |id: Option<String>, name: Option<String>| match (id, name) {
        (None, None) => None,
        (Some(id), _) => Some(DomainRef { id: Some(id), name: None }),
        (None, name) => Some(DomainRef { id: None, name }),
    };
    let project = |id: Option<String>, name: Option<String>, domain: Option<DomainRef>| match (id, name) {
        (None, None) => None,
        (Some(id), _) => Some(ProjectRef { id: Some(id), ..ProjectRef::default() }),
        (None, name) => Some(ProjectRef { id: None, name, domain }),
    };
    let o = overrides.clone();
    let other_domain = domain(o.project_domain_id, o.project_domain_name);
    let project_domain = || {
        other_domain.clone().or_else(|| domain(option("project_domain_id"), option("project_domain_name")))
    };

    if o.unscoped {
        return Ok(Scope::Unscoped);
    } else if o.system {
        return Ok(Scope::System { all: true });
    } else if let Some(id) = o.trust_id {
        return Ok(Scope::Trust { id });
    } else if let Some(domain) = domain(o.domain_id, o.domain_name) {
        return Ok(Scope::Domain(domain));
    } else if let Some(project) = project(o.project_id, o.project_name, project_domain()) {
        return Ok(Scope::Project(project));
    }
    let system = match option("system_scope").as_deref() {
        None => None,
        Some("all") => Some(Scope::System { all: true }),
        Some(_) => return Err("`system_scope` can only be `all`".into()),
    };
    let asked = [
        project(option("project_id"), option("project_name"), project_domain()).map(Scope::Project),
        domain(option("domain_id"), option("domain_name")).map(Scope::Domain),
        option("trust_id").map(|id| Scope::Trust { id }),
        system,
    ];
    let mut asked = asked.into_iter().flatten();
    match (asked.next(), asked.next()) {
        (Some(one), Some(other)) => Err(format!("two scopes at once: {one} and {other}")),
        (Some(scope), None) => Ok(scope),
        (None, _) if other_domain.is_some() => Err("a project's domain without a project".into()),
        (None, _) => Ok(Scope::Unscoped),
    }
}

/// Keys of a `v3broker` entry that neither the plugin nor the SDK knows.
fn unknown_keys(entry: &Entry) -> Vec<String> {
    // What any federated plugin takes besides, and what the SDK itself puts there for `domain_name`.
    const UNDER: [&str; 4] = ["reauthenticate", "include_catalog", "user_domain_id", "user_domain_name"];
    // openstack/config/schema.json, and what the SDK and osc-lib read besides.
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
    // One for each service, and some also for all.
    const ENDINGS: [&str; 14] = [
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
    ];
    if auth_type(entry) != "v3broker" {
        return vec![];
    }
    let known_beside = |key: &str| {
        BESIDE.contains(&key) || key.starts_with("has_") || ENDINGS.iter().any(|ending| key.ends_with(ending))
    };
    let known_under = |key: &str| {
        merge::OPTIONS.contains(&key) || merge::SCOPE_OPTIONS.contains(&key) || UNDER.contains(&key)
    };
    let beside = entry.config.keys().filter(|key| !known_beside(key)).map(|key| format!("`{key}`"));
    let under = entry.auth.keys().filter(|key| !known_under(key)).map(|key| format!("`auth.{key}`"));
    beside.chain(under).collect()
}

/// The entry as one mapping again, without what nobody should see on a screen.
fn masked(entry: Entry) -> Value {
    fn mask(dict: &mut Dict) {
        const SECRETS: [&str; 5] = ["password", "secret", "token", "passcode", "passphrase"];
        for (key, value) in dict.iter_mut() {
            match value {
                Value::Object(inner) => mask(inner),
                Value::Null => {}
                value if SECRETS.iter().any(|secret| key.ends_with(secret)) => *value = json!("••••"),
                _ => {}
            }
        }
    }
    let Entry { mut config, auth, .. } = entry;
    let mut merged = Dict::new();
    merged.extend(config.shift_remove_entry("auth_type"));
    merged.insert("auth".into(), auth.into());
    merged.extend(config.into_iter().filter(|(key, value)| key != "region_name" || text(value).is_some()));
    mask(&mut merged);
    Value::Object(merged)
}
