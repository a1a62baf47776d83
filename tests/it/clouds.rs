//! clouds.yaml and its kin mean to ksb what they mean to openstacksdk.
//!
//! `tests/clouds/*.toml` are the cases and `expected.json` is what the SDK made of them; `record.py` there
//! explains both.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use keystone_broker::clouds::{Config, Environment, Overrides, Resolved};
use keystone_broker::error::{Code, Error};
use keystone_broker::model::Scope;
use keystone_broker::platform::browser::BrowserLocation;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    cloud: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    ours: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    says: Vec<String>,
}

/// A directory with files in it, and a process that stands there.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new<'f>(files: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Self { folder }
    }

    fn home(clouds: &str) -> Self {
        Self::new([(HOME_CLOUDS, clouds.as_bytes())])
    }

    fn environment(&self, vars: &[(&str, &str)]) -> Environment {
        let here = self.path();
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.replace("{case}", here.to_str().unwrap())));
        let (vars, home) = (vars.collect(), here.join("home"));
        Environment { vars, home, current_dir: here, ..Environment::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }
}

const HOME_CLOUDS: &str = "home/.config/openstack/clouds.yaml";

fn resolve(env: &Environment, cloud: Option<&str>, overrides: &Overrides) -> Result<Resolved, Error> {
    Config::load(env)?.resolve(cloud, overrides)
}

/// Our result in the shape of `expected.json`.
fn shape(resolved: &Resolved) -> BTreeMap<String, Value> {
    let cloud = &resolved.cloud;
    let tls = &cloud.tls;
    let fields = json!({
        "name": cloud.name,
        "auth_type": resolved.auth_type,
        "auth": resolved.merged["auth"],
        "region": cloud.region,
        "scope": resolved.scope,
        "verify": tls.ca_file.as_ref().map_or(json!(tls.verify), |file| json!(file)),
        "cert": tls.key_file.as_ref().map_or(json!(tls.cert_file), |key| json!([tls.cert_file, key])),
        "proxy": cloud.proxy,
    });
    serde_json::from_value(fields).unwrap()
}

fn check(case: &Case, recorded: &Value) -> Result<(), String> {
    let place = Place::new(case.files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())));
    let vars: Vec<_> = case.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let outcome = resolve(&place.environment(&vars), case.cloud.as_deref(), &Overrides::default());
    let said = match &outcome {
        Ok(resolved) => resolved.warnings.join("\n"),
        Err(error) => format!("{error}\n{}", error.remedy.as_deref().unwrap_or("no remedy")),
    };
    for text in &case.says {
        if !said.contains(text) {
            return Err(format!("does not say {text:?} but {said}"));
        }
    }
    if said.contains("hunter2") {
        return Err(format!("tells a secret: {said}"));
    }

    let plain = json!({
        "name": "demo", "region": null, "scope": "unscoped", "verify": true, "cert": null, "proxy": null,
    });
    let ours = case.ours.clone().unwrap_or_default();
    let error = ours.get("error").map(|text| text.as_str().unwrap());
    let fails = error.is_some() || (recorded.get("error").is_some() && ours.is_empty());
    let resolved = match outcome {
        Err(_) if fails => return if said.contains(error.unwrap_or("")) { Ok(()) } else { Err(said) },
        Err(_) => return Err(said),
        Ok(resolved) if fails => return Err(format!("resolves: {resolved:#?}")),
        Ok(resolved) => resolved,
    };
    let base = if recorded.get("error").is_some() { &plain } else { recorded };
    let base = base.to_string().replace("{case}", place.path().to_str().unwrap());
    let mut expected: BTreeMap<String, Value> = serde_json::from_str(&base).unwrap();
    expected.extend(ours.into_iter().filter(|(key, _)| key != "why"));

    let mut got = shape(&resolved);
    if let (Some(Value::Object(got)), Some(Value::Object(expected))) =
        (got.get_mut("auth"), expected.get("auth"))
    {
        for (key, value) in got.iter_mut().filter(|(_, value)| *value == "••••") {
            *value = expected[key].clone(); // masked, but there
        }
    }
    if got == expected { Ok(()) } else { Err(format!("{got:#?}\ninstead of {expected:#?}")) }
}

#[test]
fn every_recorded_case_agrees() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clouds");
    let recorded: BTreeMap<String, Value> =
        serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for file in fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "toml") {
            cases.extend(
                toml::from_str::<BTreeMap<String, Case>>(&fs::read_to_string(file).unwrap()).unwrap(),
            );
        }
    }
    assert!(cases.keys().eq(recorded.keys()), "run record.py");
    let failures: Vec<_> = cases
        .iter()
        .filter_map(|(name, case)| {
            let why = check(case, &recorded[name]).err()?;
            Some(format!("{name} ({}): {why}", case.about))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n\n"));
}

const ENTRY: &str = "
clouds:
  demo:
    auth_type: v3broker
    auth:
      auth_url: https://keystone.example.org/v3
      identity_provider: idp
      protocol: openid
      username: work
      project_name: dev
      project_domain_name: Default
";

#[test]
fn the_command_line_wins_over_the_entry() {
    let place = Place::home(ENTRY);
    let env = place.environment(&[]);
    let scope = |overrides: Overrides| resolve(&env, None, &overrides).map(|resolved| json!(resolved.scope));
    let id = |text: &str| Some(text.to_owned());
    let none = Overrides::default;

    let entry = json!({"project": {"name": "dev", "domain": {"name": "Default"}}});
    assert_eq!(scope(none()).unwrap(), entry);
    // Another project lies in the entry's domain unless it is given by id or a domain is named.
    let ops = Overrides { project_name: id("ops"), ..none() };
    assert_eq!(
        scope(ops.clone()).unwrap(),
        json!({"project": {"name": "ops", "domain": {"name": "Default"}}})
    );
    let elsewhere = Overrides { project_domain_id: id("d"), ..ops };
    assert_eq!(scope(elsewhere).unwrap(), json!({"project": {"name": "ops", "domain": {"id": "d"}}}));
    let by_id = Overrides { project_id: id("p"), ..none() };
    assert_eq!(scope(by_id).unwrap(), json!({"project": {"id": "p"}}));
    let domain_only = Overrides { project_domain_name: id("Other"), ..none() };
    assert_eq!(scope(domain_only).unwrap(), json!({"project": {"name": "dev", "domain": {"name": "Other"}}}));
    let domain = Overrides { domain_name: id("Other"), ..none() };
    assert_eq!(scope(domain).unwrap(), json!({"domain": {"name": "Other"}}));
    assert_eq!(
        scope(Overrides { trust_id: id("t"), ..none() }).unwrap(),
        json!({"OS-TRUST:trust": {"id": "t"}})
    );
    assert_eq!(scope(Overrides { system: true, ..none() }).unwrap(), json!({"system": {"all": true}}));
    assert_eq!(scope(Overrides { unscoped: true, ..none() }).unwrap(), json!("unscoped"));

    let other = resolve(&env, None, &Overrides { account: id("home"), ..none() }).unwrap();
    assert_eq!(other.cloud.account.as_deref(), Some("home"));
    let elsewhere = Overrides { region: id("two"), ..none() };
    let env = place.environment(&[("OS_REGION_NAME", "one")]);
    assert_eq!(resolve(&env, None, &elsewhere).unwrap().cloud.region.as_deref(), Some("two"));
    let both = Overrides { account: id("home"), region: id("two"), ..none() };
    let resolved = resolve(&env, None, &both).unwrap();
    assert_eq!(resolved.cloud.label(), "demo");
    assert_ne!(resolved.scope, Scope::Unscoped);
}

#[test]
fn an_override_repairs_a_scope_that_contradicts_itself() {
    let place = Place::home(&ENTRY.replace("username: work", "trust_id: t"));
    let env = place.environment(&[]);
    assert_eq!(resolve(&env, None, &Overrides::default()).unwrap_err().code, Code::InvalidConfig);
    assert!(resolve(&env, None, &Overrides { unscoped: true, ..Overrides::default() }).is_ok());
}

/// A repository that someone cloned must not quietly send them to another Keystone: whichever file of the
/// current directory had a say in an entry makes it one of that directory.
#[test]
fn entries_of_the_current_folder_are_marked() {
    let source = |files: &[(&str, &str)], vars: &[(&str, &str)], below: &str| {
        let place = Place::new(files.iter().map(|(name, text)| (*name, text.as_bytes())));
        let mut env = place.environment(vars);
        env.current_dir.push(below);
        let source = resolve(&env, None, &Overrides::default()).unwrap().cloud.source;
        let relative = |file: &Path| file.strip_prefix(place.path()).unwrap().to_str().unwrap().to_owned();
        source.map(|source| (relative(&source.file), source.current_folder))
    };
    let secure = "clouds: {demo: {auth: {auth_url: https://evil.example.org}}}";
    let bystander = "clouds: {}";
    let profile = "public-clouds: {acme: {auth: {auth_url: https://evil.example.org}}}";
    let profiled = "clouds: {demo: {auth_type: v3broker, profile: acme, auth: {protocol: openid}}}";

    assert_eq!(source(&[(HOME_CLOUDS, ENTRY)], &[], ""), Some((HOME_CLOUDS.into(), false)));
    assert_eq!(source(&[("clouds.yaml", ENTRY)], &[], ""), Some(("clouds.yaml".into(), true)));
    let named = [("OS_CLIENT_CONFIG_FILE", "clouds.yaml")];
    assert_eq!(source(&[("clouds.yaml", ENTRY)], &named, ""), Some(("clouds.yaml".into(), false)));
    // A user's own configuration directory is no repository.
    assert_eq!(
        source(&[(HOME_CLOUDS, ENTRY)], &[], "home/.config/openstack"),
        Some((HOME_CLOUDS.into(), false))
    );
    let files = [(HOME_CLOUDS, ENTRY), ("secure.yaml", secure)];
    assert_eq!(source(&files, &[], ""), Some(("secure.yaml".into(), true)));
    let files = [(HOME_CLOUDS, ENTRY), ("secure.yaml", bystander)];
    assert_eq!(source(&files, &[], ""), Some((HOME_CLOUDS.into(), false)));
    let files = [(HOME_CLOUDS, profiled), ("clouds-public.yaml", profile)];
    assert_eq!(source(&files, &[], ""), Some(("clouds-public.yaml".into(), true)));
    let vars =
        [("OS_AUTH_TYPE", "v3broker"), ("OS_AUTH_URL", "https://k.example.org"), ("OS_PROTOCOL", "openid")];
    assert_eq!(source(&[("clouds.yaml", ENTRY)], &vars, ""), None);
}

#[test]
fn a_config_tells_what_it_found() {
    let place = Place::new([(HOME_CLOUDS, ENTRY.as_bytes()), ("secure.yml", b"clouds: {other: {auth: {}}}")]);
    let env = place.environment(&[("XDG_CONFIG_HOME", "{case}/xdg")]);
    let config = Config::load(&env).unwrap();
    assert_eq!(config.names().collect::<Vec<_>>(), ["demo", "other"]);
    assert_eq!(config.default_name(), None);
    assert_eq!(config.clouds_file().unwrap().file, place.path().join(HOME_CLOUDS));
    assert!(config.secure_file().unwrap().current_folder);
    assert_eq!(config.new_secure_file(), place.path().join("xdg/openstack/secure.yaml"));
    assert_eq!(config.auth_type("demo").unwrap(), "v3broker");
    assert_eq!(config.auth_type("other").unwrap(), "password");
    assert_eq!(config.auth_type("third").unwrap_err().code, Code::UnknownCloud);

    let env = place.environment(&[("OS_CLOUD", "other"), ("OS_CLIENT_SECURE_FILE", "mine.yaml")]);
    let config = Config::load(&env).unwrap();
    assert_eq!(config.default_name(), Some("other"));
    assert_eq!(config.new_secure_file(), place.path().join("mine.yaml"));
    assert!(config.warnings()[0].contains("OS_CLIENT_SECURE_FILE"), "{:?}", config.warnings());
}

#[test]
fn secrets_are_masked() {
    let secrets = "
      password: hunter2
      application-credential-secret: hunter2
      token: hunter2
    metrics: {influxdb: {password: hunter2, host: h}}
    passcode: hunter2
    interface: public
";
    let place = Place::home(&format!("{ENTRY}{secrets}"));
    let resolved = resolve(&place.environment(&[]), Some("demo"), &Overrides::default()).unwrap();
    let shown = resolved.merged.to_string();
    assert!(!shown.contains("hunter2") && !format!("{resolved:?}").contains("hunter2"), "{shown}");
    assert_eq!(resolved.merged["metrics"]["influxdb"], json!({"password": "••••", "host": "h"}));
    assert_eq!(resolved.merged["interface"], "public");
}

#[test]
fn files_that_cannot_be_read_are_skipped() {
    let latin1 = [ENTRY.as_bytes(), b"# caf\xe9"].concat();
    let place = Place::new([("clouds.yaml", latin1.as_slice()), (HOME_CLOUDS, ENTRY.as_bytes())]);
    let resolved = resolve(&place.environment(&[]), None, &Overrides::default()).unwrap();
    assert_eq!(resolved.cloud.source.unwrap().file, place.path().join(HOME_CLOUDS));
    assert!(resolved.warnings[0].contains("UTF-8"), "{:?}", resolved.warnings);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_file_makes_it_panic(clouds in any::<Vec<u8>>(), secure in "[a-c:{}\\[\\], \n&*<-]{0,40}") {
        let place = Place::new([("clouds.yaml", clouds.as_slice()), ("secure.yaml", secure.as_bytes())]);
        let _ = resolve(&place.environment(&[]), Some("demo"), &Overrides::default());
    }

    /// Anything may stand where the SDK looks for something.
    #[test]
    fn no_value_makes_it_panic(values in proptest::collection::vec((0_usize..24, 0_usize..10), 0..8)) {
        const KEYS: [&str; 24] = [
            "auth", "auth_type", "auth-type", "profile", "cloud", "regions", "region_name", "region-name",
            "verify", "insecure", "cacert", "cert", "key", "project_id", "domain_name", "login_timeout",
            "redirect_port", "protocol", "auth_url", "username", "sign_in", "logout_url", "system_scope",
            "trust_id",
        ];
        const VALUES: [&str; 10] = [
            "", "no", "-7", "1e3", "[]", "[{name: a, values: {auth: {auth_url: x}}}, b]", "{}",
            "{cloud: demo}", "'{region_name}'", "{auth_url: 'https://{a', protocol: [x]}",
        ];
        let line = |&(key, value): &(usize, usize)| format!("    {}: {}\n", KEYS[key], VALUES[value]);
        let lines = values.iter().map(line).collect::<Vec<_>>().concat();
        let place = Place::home(&format!("clouds:\n  demo:\n    auth_type: v3broker\n{lines}"));
        let _ = resolve(&place.environment(&[("OS_REGION_NAME", "b")]), None, &Overrides::default());
    }
}

// --- how people sign in ---

fn sign_in(entry: &str) -> Result<Value, Error> {
    let clouds = format!("clouds: {{demo: {entry}}}");
    let resolved = resolve(&Place::home(&clouds).environment(&[]), Some("demo"), &Overrides::default())?;
    Ok(json!(resolved.cloud.sign_in))
}

#[test]
fn an_entry_for_the_code_flow_says_which_client_we_are() {
    let keystone = "auth_url: https://keystone.example.org/v3, identity_provider: idp, protocol: openid";
    let client =
        "discovery_endpoint: https://idp.example.org/.well-known/openid-configuration, client_id: cli";
    let plain = json!({
        "way": "oidc_code", "redirect_host": "127.0.0.1", "redirect_port": 0, "timeout": 300,
        "oidc": {
            "discovery_endpoint": "https://idp.example.org/.well-known/openid-configuration", "client_id": "cli",
            "scope": "openid profile", "bearer": "access_token", "redirect_path": "/callback",
        },
    });
    // keystoneauth's own entry, ours, and the first one moved over by `ksb clouds adopt`.
    for entry in [
        format!(
            "{{auth_type: v3oidcauthcode, auth: {{{keystone}, {client}, redirect_uri: 'urn:ietf:wg:oauth:2.0:oob'}}}}"
        ),
        format!("{{auth_type: v3broker, auth: {{{keystone}, {client}, sign_in: oidc_code}}}}"),
        format!("{{auth_type: v3broker, auth: {{{keystone}, {client}}}}}"),
        format!("{{auth_type: v3broker, {client}, auth: {{{keystone}}}}}"),
    ] {
        assert_eq!(sign_in(&entry).unwrap(), plain, "{entry}");
    }
    let whole = format!(
        "{{auth_type: v3broker, auth: {{{keystone}, {client}, client_secret: s3, \
         token_endpoint_auth_method: client_secret_post, openid_scope: openid groups, \
         access_token_type: id_token, redirect_uri: 'http://localhost:8000/back', prompt: login, max_age: 60, \
         require_amr: 'otp, hwk', max_auth_age: 3600}}}}"
    );
    let whole = sign_in(&whole).unwrap();
    assert_eq!((&whole["redirect_host"], &whole["redirect_port"]), (&json!("localhost"), &json!(8000)));
    let oidc = &whole["oidc"];
    assert_eq!((&oidc["client_secret"], &oidc["auth_method"]), (&json!("s3"), &json!("client_secret_post")));
    assert_eq!((&oidc["scope"], &oidc["bearer"]), (&json!("openid groups"), &json!("id_token")));
    assert_eq!(oidc["redirect_path"], "/back");
    assert_eq!(oidc["extra"], json!([["prompt", "login"], ["max_age", "60"]]));
    assert_eq!(oidc["require"], json!({"amr": ["otp", "hwk"], "max_auth_age": 3600}));
    // The device flow has the same client.
    for entry in [
        format!("{{auth_type: v3oidcdeviceauthz, auth: {{{keystone}, {client}}}}}"),
        format!("{{auth_type: v3broker, auth: {{{keystone}, {client}, sign_in: oidc_device}}}}"),
    ] {
        let said = sign_in(&entry).unwrap();
        assert_eq!((&said["way"], &said["oidc"]), (&json!("oidc_device"), &plain["oidc"]), "{entry}");
    }
    // WebSSO stays what is meant where nothing is said.
    assert_eq!(sign_in(&format!("{{auth_type: v3broker, auth: {{{keystone}}}}}")).unwrap()["way"], "websso");
}

/// The table that tests the plugin, too.
#[test]
fn where_the_browser_is_is_told_by_variables_parents_and_tmux() {
    let table: Value = serde_json::from_str(include_str!("../browser-locations.json")).unwrap();
    for row in table["rows"].as_array().unwrap() {
        let variable = |name: &str| row["variables"][name].as_str().map(str::to_owned);
        let parents: Vec<_> =
            row["parents"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().into()).collect();
        let location = BrowserLocation::find(variable, &parents, row["tmux"].as_str().unwrap());
        let said = json!({
            "opens": location.can_be_opened(),
            "remote": location.is_remote(),
            "local": location.advice(true),
            "anywhere": location.advice(false),
        });
        assert_eq!(said, table["locations"][row["location"].as_str().unwrap()], "{}", row["what"]);
    }
}

#[test]
fn auto_is_the_browser_where_a_person_sees_one() {
    let entry = "clouds: {demo: {auth_type: v3broker, auth: {auth_url: https://keystone.example.org/v3, \
                 identity_provider: idp, protocol: openid, client_id: cli, sign_in: auto, \
                 discovery_endpoint: https://idp.example.org/.well-known/openid-configuration}}}";
    let place = Place::home(entry);
    let way = |vars: &[(&str, &str)], overrides: &Overrides| {
        let resolved = resolve(&place.environment(vars), Some("demo"), overrides).unwrap();
        json!(resolved.cloud.sign_in.way)
    };
    for (vars, expected) in [
        (&[("DISPLAY", ":0")][..], "oidc_code"),
        (&[("BROWSER", "links"), ("SSH_CONNECTION", "a b")], "oidc_code"),
        (&[("DISPLAY", ":10"), ("SSH_CONNECTION", "a b")], "oidc_device"),
        (&[("DISPLAY", ":0"), ("KSB_NO_BROWSER", "1")], "oidc_device"),
        (&[], "oidc_device"),
    ] {
        assert_eq!(way(vars, &Overrides::default()), expected, "{vars:?}");
    }
    let told = Overrides { sign_in: Some("oidc_code".into()), ..Overrides::default() };
    assert_eq!(way(&[], &told), "oidc_code", "the command line wins");
    let websso = Place::home(&entry.replace("sign_in: auto", "sign_in: websso"));
    let error = resolve(&websso.environment(&[]), Some("demo"), &told).unwrap_err();
    assert!(error.detail.contains("signs in by websso"), "{}", error.detail);
}

#[test]
fn what_the_code_flow_cannot_do_without_is_named() {
    let keystone = "auth_url: https://keystone.example.org/v3, identity_provider: idp, protocol: openid";
    let endpoint = "discovery_endpoint: https://idp.example.org/x";
    for (options, why) in [
        ("sign_in: oidc_code".to_owned(), "no `discovery_endpoint` under `auth`"),
        (format!("sign_in: oidc_code, {endpoint}"), "no `client_id` under `auth`"),
        ("sign_in: oidc_code, discovery_endpoint: ftp://idp".into(), "`discovery_endpoint` is not an http"),
        (format!("{endpoint}, client_id: cli, access_token_type: saml"), "neither access_token nor id_token"),
        (
            format!("{endpoint}, client_id: cli, redirect_uri: https://example.org/"),
            "not an http address of this",
        ),
        ("sign_in: carrier-pigeon".into(), "`oidc_device`, `auto`, `workload` and `password`"),
    ] {
        let error =
            sign_in(&format!("{{auth_type: v3broker, auth: {{{keystone}, {options}}}}}")).unwrap_err();
        assert!(error.detail.contains(why), "{options}: {}", error.detail);
    }
}

#[test]
fn an_address_with_a_password_in_it_is_not_taken_and_not_shown() {
    let keystone = "https://keystone.example.org/v3";
    let with = "https://alice:hunter2@keystone.example.org/v3";
    for (auth_url, options, key) in [
        (with, "", "auth_url"),
        (keystone, ", logout_url: 'https://alice@idp.example'", "logout_url"),
        (
            keystone,
            ", sign_in: oidc_code, client_id: cli, discovery_endpoint: 'https://:hunter2@idp.example/x'",
            "discovery_endpoint",
        ),
    ] {
        let entry =
            format!("{{auth_type: v3broker, auth: {{auth_url: '{auth_url}', protocol: openid{options}}}}}");
        let error = sign_in(&entry).unwrap_err();
        let said = format!("{} {:?}", error.detail, error.remedy);
        assert!(said.contains(&format!("`{key}` holds a name or a password")), "{said}");
        assert!(!said.contains("hunter2") && !said.contains("alice"), "{said}");
    }
}

#[test]
fn an_entry_for_a_workload_says_where_its_token_is() {
    let keystone = "auth_url: https://keystone.example.org/v3, identity_provider: idp, protocol: openid";
    let client = "client_id: ci, client_secret: s3";
    let broker = |options: &str| {
        format!("{{auth_type: v3broker, auth: {{{keystone}, sign_in: workload, {options}}}}}")
    };
    let theirs = |auth_type: &str, options: &str| {
        format!("{{auth_type: {auth_type}, auth: {{{keystone}, {options}}}}}")
    };
    // The same JSON as in plugin-shim/tests/test_options.py: else `openstack` and `ksb` would not share a sign-in.
    let token = json!({"token": {"from": "access_token", "token": "h.c.s"}});
    let at_endpoint = json!({"client": {
        "token_endpoint": "https://idp.example.org/token", "client_id": "ci", "client_secret": "s3",
        "scope": "openid groups", "bearer": "id_token",
    }});
    let by_metadata = json!({"client": {
        "discovery_endpoint": "https://idp.example.org/metadata", "client_id": "ci", "client_secret": "s3",
        "scope": "openid profile", "bearer": "access_token",
    }});
    for (entry, expected) in [
        (broker("token_file: /run/token"), json!({"file": {"path": "/run/token"}})),
        (
            broker("token_command: mint -a 'k s'"),
            json!({"command": {"command": "mint -a 'k s'", "limit": 30}}),
        ),
        (
            broker("token_command: mint, token_command_limit: 5"),
            json!({"command": {"command": "mint", "limit": 5}}),
        ),
        (broker("access_token: h.c.s"), token.clone()),
        (theirs("v3broker", "access_token: h.c.s"), token.clone()),
        (theirs("v3oidcaccesstoken", "access_token: h.c.s"), token),
        (
            broker(&format!(
                "{client}, access_token_endpoint: https://idp.example.org/token, openid_scope: openid groups, \
                 access_token_type: id_token"
            )),
            at_endpoint,
        ),
        (
            theirs(
                "v3oidcclientcredentials",
                &format!("{client}, discovery_endpoint: https://idp.example.org/metadata"),
            ),
            by_metadata,
        ),
    ] {
        let said = sign_in(&entry).unwrap();
        assert_eq!((&said["way"], &said["workload"]), (&json!("workload"), &expected), "{entry}");
    }
    for (options, why) in [
        ("token_audience: keystone", "`sign_in: workload` needs a token: `token_file`"),
        ("token_env: NOT_SET", "the variable NOT_SET is not set"),
        ("token_command: mint, token_command_limit: 0", "`token_command_limit`"),
        ("client_id: ci, discovery_endpoint: https://idp.example.org/", "no `client_secret` under `auth`"),
        (client, "neither `discovery_endpoint` nor `access_token_endpoint`"),
    ] {
        let error = sign_in(&broker(options)).unwrap_err();
        assert!(error.detail.contains(why), "{options}: {}", error.detail);
    }
}

#[test]
fn what_a_workload_has_of_its_environment_comes_with_the_request() {
    let entry = |options: &str| {
        Place::home(&format!(
            "clouds: {{demo: {{auth_type: v3broker, auth: {{auth_url: https://keystone.example.org/v3, protocol: openid, \
             identity_provider: idp, sign_in: workload, {options}}}}}}}"
        ))
    };
    let vars = [
        ("ID_TOKEN", "h.c.s"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://gh.example/?a=1"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "rt"),
    ];
    let github =
        json!({"github": {"url": "https://gh.example/?a=1", "request_token": "rt", "audience": "keystone"}});
    for (options, expected) in [
        ("token_env: ID_TOKEN", json!({"token": {"from": "$ID_TOKEN", "token": "h.c.s"}})),
        ("token_audience: keystone", github),
        ("token_file: ~/token", json!({"file": {"path": "{case}/home/token"}})),
        ("token_file: token", json!({"file": {"path": "{case}/token"}})),
    ] {
        let place = entry(options);
        let resolved = resolve(&place.environment(&vars), Some("demo"), &Overrides::default()).unwrap();
        let expected = expected.to_string().replace("{case}", place.path().to_str().unwrap());
        assert_eq!(json!(resolved.cloud.sign_in.workload).to_string(), expected, "{options}");
    }
}

#[test]
fn an_entry_for_keystones_own_user_needs_no_protocol() {
    let keystone = "auth_url: https://keystone.example.org/v3";
    let alice = "username: alice, user_domain_name: Default";
    let user = json!({"name": "alice", "domain": {"name": "Default"}});
    let both = json!({"user": user, "methods": ["password", "totp"], "password": "s3"});
    for (entry, expected) in [
        (
            format!(
                "{{auth_type: v3broker, auth: {{{keystone}, {alice}, sign_in: password, protocol: openid}}}}"
            ),
            json!({"user": user, "methods": ["password"]}),
        ),
        (
            format!("{{auth_type: v3totp, auth: {{{keystone}, {alice}, passcode: 123456}}}}"),
            json!({"user": user, "methods": ["totp"]}),
        ),
        (
            format!(
                "{{auth_type: v3multifactor, auth_methods: [v3password, v3totp], auth: {{{keystone}, {alice}, password: s3}}}}"
            ),
            both.clone(),
        ),
        // Moved over by `ksb clouds adopt`.
        (
            format!(
                "{{auth_type: v3broker, auth: {{{keystone}, {alice}, password: s3, auth_methods: 'v3password,v3totp'}}}}"
            ),
            both,
        ),
        (
            format!("{{auth_type: v3totp, auth: {{{keystone}, user_id: u1}}}}"),
            json!({"user": {"id": "u1"}, "methods": ["totp"]}),
        ),
    ] {
        let place = Place::home(&format!("clouds: {{demo: {entry}}}"));
        let resolved = resolve(&place.environment(&[]), Some("demo"), &Overrides::default()).unwrap();
        let cloud = json!(resolved.cloud);
        assert_eq!(cloud["sign_in"]["way"], "password", "{entry}");
        assert_eq!(cloud["sign_in"]["password"], expected, "{entry}");
        for absent in ["protocol", "identity_provider", "account"] {
            assert_eq!(cloud.get(absent), None, "{entry}");
        }
        assert!(!resolved.merged.to_string().contains("s3"), "{}", resolved.merged);
        assert!(!resolved.merged.to_string().contains("123456"), "{}", resolved.merged);
    }
    for (options, why) in [
        (keystone.to_owned(), "neither `username` nor `user_id`"),
        (format!("{keystone}, username: alice"), "neither `user_domain_name` nor `user_domain_id`"),
        (
            format!("{keystone}, {alice}, auth_methods: v3kerberos"),
            "v3kerberos is neither v3password nor v3totp",
        ),
    ] {
        let error =
            sign_in(&format!("{{auth_type: v3broker, auth: {{sign_in: password, {options}}}}}")).unwrap_err();
        assert!(error.detail.contains(why), "{options}: {}", error.detail);
    }
}
