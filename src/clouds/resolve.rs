//! From a merged entry to what the broker is told: [`Cloud`] and [`Scope`].

use serde_json::{Map, Value, json};
use url::Url;

use super::entry::{self, Dict, Entry, text};
use super::keys::{self, PROJECT_DOMAIN, SCOPE_OPTIONS};
use super::variables::{self, Variables};
use super::{Config, password, proxy, scope, search, sign_in, tls, workload};
use crate::error::{Code, Error, Result};
use crate::model::address::{USERINFO, has_userinfo};
use crate::model::{Cloud, Scope, Source};

/// What the command line says over the entry.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The account label.
    pub account: Option<String>,
    /// The way to sign in.
    pub sign_in: Option<String>,
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

impl Overrides {
    /// How many kinds of scopes are named.
    pub(super) fn kinds(&self) -> usize {
        let project = self.project_id.is_some() || self.project_name.is_some();
        let domain = self.domain_id.is_some() || self.domain_name.is_some();
        let kinds = [project, domain, self.trust_id.is_some(), self.system, self.unscoped];
        kinds.into_iter().filter(|is_named| *is_named).count()
    }

    /// Takes over a scope that is named elsewhere.
    #[must_use]
    pub fn with_scope(self, scope: Self) -> Self {
        let Self { account, sign_in, region, .. } = self;
        Self { account, sign_in, region, ..scope }
    }
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
    /// What a user should know, each a sentence.
    pub warnings: Vec<String>,
    /// The merged entry, secrets masked.
    pub merged: Value,
    /// What of the merged entry holds however one authenticates: region, interface, the services' settings.
    pub settings: Map<String, Value>,
}

/// The plugin of this project.
pub(super) const OURS: &str = "v3broker";

/// Others whose entries say all that we need: keystoneauth's own (and, under the first name, keystoneauth-websso's).
const THEIRS: [&str; 7] = [
    "v3websso",
    sign_in::AUTHCODE,
    sign_in::DEVICE,
    workload::CLIENT,
    workload::TOKEN,
    password::SEVERAL,
    password::TOTP,
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
        resolved.map_err(|error| with_notes(error, &self.notes))
    }

    /// The same where variables beside an entry count (see [`Variables`]), those of a scope only if it `needs_scope`.
    pub fn resolve_with_variables(
        &self,
        name: Option<&str>,
        overrides: &Overrides,
        needs_scope: bool,
    ) -> Result<Resolved> {
        let resolved = self.resolve(name, overrides)?;
        if resolved.cloud.label() == self.environment_name {
            return Ok(resolved);
        }
        let variables = Variables::beside(self.env, &resolved, needs_scope && overrides.kinds() == 0);
        let mut resolved = if variables.asks_for_scope() {
            self.resolve(name, &overrides.clone().with_scope(variables.scope.clone()))?
        } else {
            resolved
        };
        variables.settle(&mut resolved.settings);
        resolved.warnings.extend(variables.tell(&resolved));
        Ok(resolved)
    }

    /// The `auth_type` of an entry, whatever it is.
    pub fn auth_type(&self, name: &str) -> Result<String> {
        self.merge(name, None).map(|named| auth_type(&named.entry))
    }

    fn resolve_named(&self, name: &str, overrides: &Overrides) -> Result<Resolved> {
        let named = self.follow(name, overrides.region.as_deref(), &mut Vec::new())?;
        let mut warnings = self.notes.clone();
        warnings.extend(named.entry.notes.iter().cloned());
        let (cloud, scope) = self
            .translate(&named, overrides, &mut warnings)
            .map_err(|error| with_notes(error, &named.entry.notes))?;
        Ok(Resolved {
            cloud,
            scope,
            auth_type: auth_type(&named.entry),
            warnings,
            settings: keys::settings(&named.entry),
            merged: masked(named.entry),
        })
    }

    fn translate(
        &self,
        named: &Named,
        overrides: &Overrides,
        warnings: &mut Vec<String>,
    ) -> Result<(Cloud, Scope)> {
        let Named { name, entry, source } = named;
        let bad = |why: String| self.bad(name, &why);
        let unknown = if auth_type(entry) == OURS { keys::unknown(entry) } else { vec![] };
        if *name != self.environment_name && !unknown.is_empty() {
            warnings.push(format!("{} of cloud {name} is unknown to `v3broker`", unknown.join(", ")));
        }
        let option = |key: &str| entry.auth.get(key).and_then(text);
        let missing = |key: &str, example: &str| {
            let unknown =
                if unknown.is_empty() { String::new() } else { format!(" (but {})", unknown.join(", ")) };
            bad(format!("no `{key}` under `auth`{unknown}")).remedy(format!("add `{key}: {example}` there"))
        };

        let auth_url =
            option("auth_url").ok_or_else(|| missing("auth_url", "https://keystone.example.org/v3"))?;
        let auth_url = address("auth_url", &auth_url).map_err(bad)?;
        let local = password::is_meant(&auth_type(entry), entry);
        let federated = |key: &str| option(key).filter(|_| !local);
        let protocol = federated("protocol").or_else(|| local.then(String::new));
        let cloud = Cloud {
            identity_provider: federated("identity_provider"),
            protocol: protocol.ok_or_else(|| missing("protocol", "openid"))?,
            // For a user of Keystone's own it is the name, and no label.
            account: overrides.account.clone().or_else(|| federated("username")),
            region: entry.config.get("region_name").and_then(text),
            tls: tls::of(self.env, &entry.config, &self.place(name), warnings).map_err(bad)?,
            proxy: proxy::of(self.env, &auth_url),
            sign_in: sign_in::of(self.env, entry, &auth_type(entry), overrides.sign_in.as_deref())
                .map_err(bad)?,
            logout_url: option("logout_url")
                .map(|url| address("logout_url", &url))
                .transpose()
                .map_err(bad)?,
            source: source.clone(),
            name: Some(name.clone()),
            auth_url,
        };
        Ok((cloud, scope::of(&entry.auth, overrides).map_err(bad)?))
    }

    /// The entry itself, or the one that its `cloud` refers to, with its own scope, account and region.
    fn follow(&self, name: &str, region: Option<&str>, seen: &mut Vec<String>) -> Result<Named> {
        let mut own = self.merge(name, region)?;
        self.check_auth_type(&own)?;
        // Beside an `auth_url` it is only a name, as in the plugin.
        let refers = auth_type(&own.entry) == OURS && !own.entry.auth.contains_key("auth_url");
        let other = own.entry.auth.get("cloud").filter(|_| refers).and_then(text);
        let Some(other) = other else { return Ok(own) };
        own.entry.auth.shift_remove("cloud");
        if !self.entries.contains_key(&other) {
            let known = self.known().unwrap_or_default();
            return Err(
                self.bad(name, &format!("`cloud` under `auth` names `{other}`, which is none of {known}"))
            );
        }
        seen.push(name.to_owned());
        if seen.contains(&other) {
            let circle = seen.join(" → ");
            return Err(self.bad(name, &format!("`cloud` leads round in a circle: {circle} → {other}")));
        }
        let mut target = self.follow(&other, region, seen)?;
        let auth = &mut target.entry.auth;
        let names = |key: &&str| own.entry.auth.contains_key(*key);
        if SCOPE_OPTIONS.iter().any(names) {
            // A project's name alone is one in the domain that the other entry's project is in.
            let keeps_domain = names(&"project_name") && !PROJECT_DOMAIN.iter().any(names);
            auth.retain(|key, _| {
                let key = key.as_str();
                !SCOPE_OPTIONS.contains(&key) || keeps_domain && PROJECT_DOMAIN.contains(&key)
            });
        }
        let (ours, ignored): (Dict, Dict) = own
            .entry
            .auth
            .into_iter()
            .partition(|(key, _)| key == "username" || SCOPE_OPTIONS.contains(&key.as_str()));
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
        let mut notes = Vec::new();
        let profile = self.profile(raw, &mut notes);
        let layer = profile.as_ref().map(|(dict, _)| dict);
        let auth_url = [Some(raw), layer].into_iter().flatten().find_map(auth_url);
        let variables_count = !of_environment && !variables::are_of_another_cloud(self.env, auth_url);
        let by_variable = region.is_none() && variables_count;
        let region = region.or_else(|| self.env.get("OS_REGION_NAME").filter(|_| variables_count));
        let asked: Vec<_> = [("cacert", "OS_CACERT"), ("cert", "OS_CERT"), ("key", "OS_KEY")]
            .into_iter()
            .filter(|_| variables_count)
            .filter_map(|(key, variable)| Some((key, self.env.get(variable)?)))
            .collect();
        let mut entry = entry::entry(raw, layer, region, &asked).map_err(|why| {
            if by_variable && why.starts_with("there is no region") {
                let remedy = "unset OS_REGION_NAME, or set it to one of them";
                return Error::new(Code::InvalidConfig, format!("OS_REGION_NAME: {why}"))
                    .cloud(name)
                    .remedy(remedy);
            }
            self.bad(name, &why)
        })?;
        entry.notes.extend(notes);

        // Whichever file had a say may have been put into the current directory by someone else.
        let mut files = self.files_of(name).chain(profile.as_ref().map(|(_, source)| source));
        let first = files.clone().next();
        let source = files.find(|file| file.current_folder).or(first).cloned();
        Ok(Named { name: name.to_owned(), entry, source })
    }

    /// The vendor profile that the entry names (`_expand_vendor_profile`), if clouds-public.yaml has it.
    fn profile(&self, raw: &Dict, notes: &mut Vec<String>) -> Option<(Dict, Source)> {
        let name = raw.get("profile").or_else(|| raw.get("cloud")).and_then(text)?;
        if name == self.environment_name {
            return None;
        }
        if let Some(mut found) = search::first(self.env, "clouds-public", None, notes)
            && let Some(Value::Object(profile)) =
                found.content.pointer_mut("/public-clouds").and_then(|all| all.get_mut(&name))
        {
            return Some((std::mem::take(profile), found.source));
        }
        notes.push(format!(
            "profile `{name}` is in no clouds-public.yaml; those that openstacksdk has built in or fetches \
             from a URL are not known here: write its `auth_url` into the entry"
        ));
        None
    }

    fn check_auth_type(&self, named: &Named) -> Result<()> {
        let auth_type = auth_type(&named.entry);
        if auth_type == OURS || THEIRS.contains(&auth_type.as_str()) {
            return Ok(());
        }
        let error =
            self.bad(&named.name, &format!("auth_type `{auth_type}` is not one that ksb signs in for"));
        Err(error.remedy("set `auth_type: v3broker`, and `identity_provider` and `protocol` under `auth`"))
    }

    fn bad(&self, name: &str, why: &str) -> Error {
        Error::new(Code::InvalidConfig, format!("{}: {why}", self.place(name))).cloud(name)
    }

    /// Where an entry is written.
    fn place(&self, name: &str) -> String {
        if name == self.environment_name {
            return "OS_* variables".into();
        }
        let files: Vec<_> = self.files_of(name).map(|source| source.file.display().to_string()).collect();
        files.join(" with ")
    }

    /// The files that have a say in an entry, clouds.yaml first.
    fn files_of(&self, name: &str) -> impl Iterator<Item = &Source> + Clone {
        let files = self.clouds_file.iter().chain(&self.secure_file);
        files.filter(move |file| file.names.iter().any(|entry| entry == name)).map(|file| &file.source)
    }

    fn unknown(&self, name: &str) -> Error {
        let what = match (self.clouds_file(), self.known()) {
            (_, Some(known)) => format!("no cloud of this name, only {known}"),
            (Some(file), None) => format!("no cloud of this name: {} has no entries", file.file.display()),
            (None, None) => "no cloud of this name, and no clouds.yaml".into(),
        };
        // What was skipped may well have it.
        let code = if self.notes.is_empty() { Code::UnknownCloud } else { Code::InvalidConfig };
        Error::new(code, what).cloud(name).remedy(self.where_to_write())
    }

    fn nothing_chosen(&self) -> Error {
        match self.known() {
            Some(known) => {
                Error::new(Code::UnknownCloud, format!("no cloud is named, and there are several: {known}"))
                    .remedy("name one of them, or set OS_CLOUD")
            }
            None if self.env.outer.is_some() => Error::new(
                Code::UnknownCloud,
                "`ksb exec` hides the OS_* variables that its cloud is made of, and no clouds.yaml has any",
            )
            .remedy("run this outside of ksb exec"),
            None => Error::new(Code::UnknownCloud, "no cloud is named, and no clouds.yaml has any")
                .remedy(self.where_to_write()),
        }
    }

    fn known(&self) -> Option<String> {
        let names: Vec<_> = self.names().collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    fn where_to_write(&self) -> String {
        match self.clouds_file() {
            _ if !self.notes.is_empty() => "put right what was skipped".into(),
            Some(file) => format!("add it to {}", file.file.display()),
            None => {
                format!("ksb setup, or write {}", search::folders(self.env)[1].join("clouds.yaml").display())
            }
        }
    }
}

/// What was skipped may be the reason of a failure.
fn with_notes(mut error: Error, notes: &[String]) -> Error {
    for note in notes {
        error.detail = format!("{}; {note}", error.detail);
    }
    error
}

fn auth_url(entry: &Dict) -> Option<&str> {
    entry.get("auth")?.get("auth_url")?.as_str()
}

fn auth_type(entry: &Entry) -> String {
    entry.config.get("auth_type").and_then(text).unwrap_or_else(|| "none".into())
}

/// An http(s) URL. Its text is not repeated: it might carry a password.
pub(super) fn address(key: &str, value: &str) -> Result<Url, String> {
    let url =
        Url::parse(value).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    match url {
        Some(url) if has_userinfo(&url) => Err(format!("`{key}` {USERINFO}")),
        Some(url) => Ok(url),
        None => Err(format!("`{key}` is not an http or https address")),
    }
}

/// The entry as one mapping again, without what nobody should see on a screen.
fn masked(entry: Entry) -> Value {
    fn mask(dict: &mut Dict) {
        for (key, value) in dict.iter_mut() {
            match value {
                Value::Object(inner) => mask(inner),
                Value::Null => {}
                value if keys::is_secret(key) => *value = json!("••••"),
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
