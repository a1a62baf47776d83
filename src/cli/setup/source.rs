//! What a user has: an address, an openrc, or somebody's clouds.yaml. Nothing of it is run, and no secret is taken over.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use url::Url;

use super::{Args, OURS, mapping};
use crate::api::Reach;
use crate::clouds::{self, Environment};
use crate::error::{Code, Error, Result};
use crate::model::address::{USERINFO, has_userinfo};

/// No openrc is longer.
const LARGEST: u64 = 1 << 20;

/// What is known of the entry that is to be.
pub(super) struct Known {
    /// What the user gave, or the auth URL in the file.
    pub(super) address: Url,
    pub(super) auth_url: Url,
    pub(super) identity_provider: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) region: Option<String>,
    pub(super) cacert: Option<PathBuf>,
    /// What the page calls the way to sign in.
    pub(super) label: String,
    pub(super) is_from_file: bool,
    /// Whether the file has a password or a secret.
    pub(super) left_out: bool,
    /// Whether a dashboard's own redirect named the way: WebSSO then works as it stands.
    pub(super) found_sso: bool,
    name: Option<String>,
    redirect_port: Option<u16>,
    project_id: Option<String>,
    project_name: Option<String>,
    project_domain_id: Option<String>,
    project_domain_name: Option<String>,
    interface: Option<String>,
    discovery_endpoint: Option<String>,
    client_id: Option<String>,
    openid_scope: Option<String>,
}

/// Reads a file if there is one, else takes the words for an address.
pub(super) fn read(from: &str, entry: Option<&str>) -> Result<Known> {
    let known = find(from, entry)?;
    if has_userinfo(&known.address) {
        return Err(Error::new(Code::InvalidRequest, format!("the address {USERINFO}"))
            .remedy("ksb setup https://DASHBOARD"));
    }
    Ok(known)
}

fn find(from: &str, entry: Option<&str>) -> Result<Known> {
    let path = Path::new(from);
    if !from.contains("://") && path.is_file() {
        return of_file(path, entry);
    }
    let address = if from.contains("://") { from.to_owned() } else { format!("https://{from}") };
    let address = Url::parse(&address).ok().filter(Url::has_host).ok_or_else(|| {
        Error::new(Code::InvalidRequest, format!("{from} is neither a file nor an address"))
            .remedy("ksb setup https://DASHBOARD")
    })?;
    let get = |_: &str| None;
    Ok(Known::of(&get, address))
}

fn of_file(path: &Path, entry: Option<&str>) -> Result<Known> {
    let bad = |why: String| {
        Error::new(Code::InvalidConfig, format!("{}: {why}", path.display()))
            .remedy("give an openrc or a clouds.yaml, or the dashboard's address")
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_string(&mut text))
        .map_err(|error| bad(error.to_string()))?;
    let variables = variables(&text);
    if variables.iter().any(|(name, _)| name == "auth_url") {
        let get = |key: &str| {
            let found = variables.iter().rev().find(|(name, _)| name == key);
            found.map(|(_, value)| value.clone())
        };
        let address = get("auth_url").and_then(|url| Url::parse(&url).ok()).filter(Url::has_host);
        let mut known = Known::of(&get, address.ok_or_else(|| bad("OS_AUTH_URL is not an address".into()))?);
        known.is_from_file = true;
        known.left_out = SECRETS.iter().any(|secret| get(secret).is_some());
        return Ok(known);
    }
    let entries = clouds::entries_of(path).filter(|entries| !entries.is_empty());
    let entries =
        entries.ok_or_else(|| bad("neither an openrc with OS_AUTH_URL nor a clouds.yaml".into()))?;
    let name = match entry {
        Some(name) => name.to_owned(),
        None if entries.len() == 1 => entries.keys().next().cloned().unwrap_or_default(),
        None => {
            let names: Vec<_> = entries.keys().map(String::as_str).collect();
            return Err(bad(format!("it has several entries: {}", names.join(", "))).remedy("--entry NAME"));
        }
    };
    let entry = entries.get(&name).ok_or_else(|| bad(format!("no entry {name}")).remedy("--entry NAME"))?;
    let get = |key: &str| {
        let value = entry["auth"].get(key).or_else(|| entry.get(key))?;
        value.as_str().map(str::to_owned).or_else(|| value.is_number().then(|| value.to_string()))
    };
    let address = get("auth_url").and_then(|url| Url::parse(&url).ok()).filter(Url::has_host);
    // openstacksdk takes a profile's address for the profile: the well-known document lies there.
    let address =
        address.or_else(|| get("profile").and_then(|url| Url::parse(&url).ok()).filter(Url::has_host));
    let mut known = Known::of(
        &get,
        address.ok_or_else(|| bad(format!("entry {name} has no auth_url that is an address")))?,
    );
    known.is_from_file = true;
    known.left_out = SECRETS.iter().any(|secret| get(secret).is_some());
    known.name = Some(name);
    Ok(known)
}

const SECRETS: [&str; 4] = ["password", "client_secret", "application_credential_secret", "token"];

impl Known {
    fn of(get: &dyn Fn(&str) -> Option<String>, address: Url) -> Self {
        let get = |key: &str| get(key).filter(|value| !value.is_empty());
        let domain = get("project_domain_id");
        let client = get("discovery_endpoint").zip(get("client_id"));
        let secret = get("client_secret").is_some();
        // An OAuth client with a secret is the operator's own, and no secret is taken over.
        let client = client.filter(|_| !secret);
        Self {
            auth_url: address.clone(),
            address,
            identity_provider: get("identity_provider"),
            protocol: get("protocol"),
            region: get("region_name"),
            cacert: get("cacert").map(PathBuf::from),
            label: String::new(),
            is_from_file: false,
            left_out: false,
            found_sso: false,
            name: None,
            redirect_port: get("redirect_port").and_then(|port| port.parse().ok()),
            project_id: get("project_id"),
            project_name: get("project_name").filter(|_| get("project_id").is_none()),
            project_domain_name: get("project_domain_name").filter(|_| domain.is_none()),
            project_domain_id: domain,
            interface: get("interface").filter(|interface| interface != "public"),
            openid_scope: get("openid_scope").filter(|_| client.is_some()),
            discovery_endpoint: client.as_ref().map(|(endpoint, _)| endpoint.clone()),
            client_id: client.map(|(_, id)| id),
        }
    }

    /// Options win over what was found.
    pub(super) fn take_options(&mut self, args: &Args, env: &Environment) -> Result<()> {
        let over = |option: &Option<String>, found: &mut Option<String>| {
            if option.is_some() {
                found.clone_from(option);
            }
        };
        over(&args.identity_provider, &mut self.identity_provider);
        over(&args.protocol, &mut self.protocol);
        if let Some(name) = &args.project_name {
            self.project(name.clone());
        }
        self.redirect_port = args.redirect_port.or(self.redirect_port);
        if let Some(file) = &args.cacert {
            self.cacert = Some(env.current_dir.join(file));
        }
        match &self.cacert {
            Some(file) if !file.is_file() => {
                let why = format!("{} is not there", file.display());
                Err(Error::new(Code::InvalidConfig, why).remedy("--cacert FILE"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn has_no_project(&self) -> bool {
        self.project_id.is_none() && self.project_name.is_none()
    }

    /// Whether that is the one that is named.
    pub(super) fn is_project(&self, project: &Reach) -> bool {
        self.project_id.as_ref().is_none_or(|id| *id == project.id)
            && self.project_name.as_ref().is_none_or(|name| *name == project.name)
    }

    /// A project by its name, in whichever domain it is the only one.
    pub(super) fn project(&mut self, name: String) {
        self.project_id = None;
        self.project_name = Some(name).filter(|name| !name.is_empty());
    }

    /// A project that Keystone has listed.
    pub(super) fn reached(&mut self, project: &Reach) {
        self.project_name = Some(project.name.clone());
        self.project_domain_id.clone_from(&project.domain_id);
        self.project_domain_name = None;
    }

    /// After the host of what the user gave.
    pub(super) fn proposed_name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let host = self.address.host_str().unwrap_or("cloud");
        let generic =
            ["www", "api", "auth", "dashboard", "horizon", "keystone", "identity", "cloud", "console"];
        let mut labels = host.split('.');
        let first = labels.next().unwrap_or_default();
        let label = labels.next().filter(|_| generic.contains(&first)).unwrap_or(first);
        let fits = |char: &char| char.is_ascii_alphanumeric() || "-_".contains(*char);
        let name: String = label.chars().filter(fits).collect();
        if name.is_empty() || name.bytes().all(|byte| byte.is_ascii_digit()) { "cloud".into() } else { name }
    }

    /// The entry of clouds.yaml.
    pub(super) fn entry(&self) -> Value {
        let mut auth = mapping(vec![
            ("auth_url", Some(self.auth_url.as_str().trim_end_matches('/').to_owned())),
            ("identity_provider", self.identity_provider.clone()),
            ("protocol", self.protocol.clone()),
            ("project_id", self.project_id.clone()),
            ("project_name", self.project_name.clone()),
            ("project_domain_id", self.project_domain_id.clone().filter(|_| self.project_name.is_some())),
            ("project_domain_name", self.project_domain_name.clone().filter(|_| self.project_name.is_some())),
        ]);
        if let Some(port) = self.redirect_port.filter(|port| *port != 0) {
            // openstacksdk makes a text of it, and it is written as a number.
            auth.insert("redirect_port".into(), port.to_string().into());
        }
        if !self.found_sso {
            auth.extend(mapping(vec![
                ("discovery_endpoint", self.discovery_endpoint.clone()),
                ("client_id", self.client_id.clone()),
                ("openid_scope", self.openid_scope.clone()),
            ]));
        }
        let mut entry = json!({"auth_type": OURS, "auth": auth});
        if let Some(whole) = entry.as_object_mut() {
            whole.extend(mapping(vec![
                ("region_name", self.region.clone()),
                ("interface", self.interface.clone()),
                ("cacert", self.cacert.as_ref().map(|file| file.display().to_string())),
            ]));
        }
        entry
    }
}

/// What an openrc sets to plain values: `export OS_NAME="value"`, in lower case and without `OS_`. A value that a shell
/// would have to work out (`$…`, backquotes) says nothing.
fn variables(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim();
            let assigned = line.strip_prefix("export ").map_or(line, str::trim_start);
            let (name, value) = assigned.strip_prefix("OS_")?.split_once('=')?;
            let is_name = |char: char| char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_';
            if name.is_empty()
                || !name.chars().all(is_name)
                || (value.contains(['$', '`']) && !value.starts_with('\''))
            {
                // That there is one counts: a password that is read from the terminal, for one.
                return Some((name.to_lowercase(), String::new()))
                    .filter(|(name, _)| SECRETS.contains(&name.as_str()));
            }
            // With a comment after it, and whatever follows a `;`, as a shell reads it.
            let words = shlex::split(value)?;
            let value = words.first().map_or("", |word| word.trim_end_matches(';')).to_owned();
            Some((name.to_lowercase(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_openrc_is_read_and_not_run() {
        let text = "#!/usr/bin/env bash\nexport OS_AUTH_URL=\"https://ks.example:5000/v3\"\n\
                    export OS_PROJECT_NAME='a $b'\nOS_REGION_NAME=one # here\nexport OS_PROTOCOL=$(rm -rf ~)\n\
                    export OS_IDENTITY_PROVIDER=`id`\nexport OS_PASSWORD=\"$OS_PASSWORD_INPUT\"\n\
                    if [ -z \"$OS_REGION_NAME\" ]; then unset OS_REGION_NAME; fi\nexport OS_INTERFACE=internal; reboot\n";
        let found = variables(text);
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            found,
            [
                ("auth_url", "https://ks.example:5000/v3"),
                ("project_name", "a $b"),
                ("region_name", "one"),
                ("password", ""),
                ("interface", "internal"),
            ]
        );
    }

    #[test]
    fn an_entry_is_named_after_its_place() {
        for (address, name) in [
            ("https://horizon.acme.example/", "acme"),
            ("https://acme.example:5000/v3", "acme"),
            ("https://127.0.0.1/", "cloud"),
            ("https://localhost:8443/", "localhost"),
        ] {
            assert_eq!(read(address, None).unwrap().proposed_name(), name);
        }
        assert!(read("no such file", None).is_err());
        assert_eq!(read("acme.example", None).unwrap().address.as_str(), "https://acme.example/");
    }
}
