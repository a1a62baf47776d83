//! `config.toml`: the system's file and the user's; of limits the stricter value is in force.

use std::fs;

use jiff::SignedDuration;
use keystone_broker::config::{Config, Lock};
use keystone_broker::error::{Code, Error};
use keystone_broker::model::Cloud;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::sandbox::{KSB, Sandbox, end_of};
use crate::support::spawn;

/// Two files in a directory of the test's.
struct Files(TempDir);

impl Files {
    fn read(system: &str, user: &str) -> (Self, Result<Config, Error>) {
        let folder = tempfile::tempdir().unwrap();
        let [theirs, own] = ["system.toml", "user.toml"].map(|name| folder.path().join(name));
        fs::write(&theirs, system).unwrap();
        fs::write(&own, user).unwrap();
        let config = Config::layered(&theirs, &own);
        (Self(folder), config)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

fn load(system: &str, user: &str) -> Config {
    Files::read(system, user).1.unwrap()
}

/// A cloud of this name, at `keystone.example`.
fn cloud(name: &str) -> Cloud {
    cloud_at(name, "keystone.example")
}

fn cloud_at(name: &str, host: &str) -> Cloud {
    let auth_url = format!("https://{host}:5000/v3");
    serde_json::from_value(json!({"name": name, "auth_url": auth_url, "protocol": "openid"})).unwrap()
}

#[test]
fn without_a_file_there_are_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::layered(&folder.path().join("a"), &folder.path().join("b")).unwrap();
    assert_eq!(config.lock, Lock { idle: None, on_screen_lock: false, on_sleep: false });
    assert_eq!((config.session_lifetime, config.lease_lifetime, config.unattended), (None, None, true));
    assert!(!config.requires_confirmation(&cloud("demo")));
    let demo = cloud("demo");
    let prompting = config.prompting(&demo);
    assert_eq!((prompting.programs, prompting.cool_down), (None, SignedDuration::from_mins(1)));
}

#[test]
fn the_systems_settings_hold_where_the_user_has_none_and_the_users_taste_goes_first() {
    let system = "browser = \"theirs {url}\"\n[clouds.demo]\nlogout_url = \"https://idp.example/out\"\n\
                  [clouds.other]\nbrowser = \"theirs too {url}\"\n";
    let config = load(system, "");
    assert_eq!(config.browser(&cloud("demo")).as_deref(), Some("theirs {url}"));
    assert_eq!(config.logout_url(&cloud("demo")).unwrap().as_str(), "https://idp.example/out");

    let config = load(system, "browser = \"own {url}\"\n[clouds.demo]\nbrowser = \"demo's {url}\"\n");
    let browser = |name: &str| config.browser(&cloud(name)).unwrap();
    assert_eq!(["demo", "other", "third"].map(browser), ["demo's {url}", "theirs too {url}", "own {url}"]);
    assert_eq!(config.logout_url(&cloud("demo")).unwrap().as_str(), "https://idp.example/out");
}

#[test]
fn a_host_may_have_limits_of_its_own_whatever_its_clouds_are_called() {
    let own = "confirm = true\n[prompt]\ncool_down = \"2min\"\n[hosts.\"keystone.example\"]\nconfirm = false\n\
               [hosts.\"keystone.example\".prompt]\nprograms = [\"tofu\"]\n";
    let config = load("[hosts.\"keystone.example\".prompt]\ncool_down = \"5min\"\n", own);
    for name in ["demo", "any other name"] {
        let demo = cloud(name);
        assert!(!config.requires_confirmation(&demo));
        let prompting = config.prompting(&demo);
        assert_eq!(prompting.programs, Some(&["tofu".to_owned()][..]));
        assert_eq!(prompting.cool_down, SignedDuration::from_mins(5));
    }
    let other = cloud_at("demo", "other.example");
    assert!(config.requires_confirmation(&other));
    assert_eq!(config.prompting(&other).cool_down, SignedDuration::from_mins(2));
}

/// Key, the system's value, a stricter one, a looser one.
const LIMITS: [(&str, &str, &str, &str); 9] = [
    ("confirm", "true", "true", "false"),
    ("lease.lifetime", "\"8h\"", "\"1h\"", "\"off\""),
    ("lease.unattended", "false", "false", "true"),
    ("lock.idle", "\"30min\"", "\"10min\"", "\"31min\""),
    ("lock.on_screen_lock", "true", "true", "false"),
    ("lock.on_sleep", "true", "true", "false"),
    ("prompt.cool_down", "\"5min\"", "\"6min\"", "\"4min\""),
    ("prompt.programs", "[\"tofu\", \"openstack\"]", "[\"tofu\"]", "[\"tofu\", \"evil\"]"),
    ("session.lifetime", "\"12h\"", "\"8h\"", "\"off\""),
];

/// Everything that is in force.
fn said(config: &Config) -> String {
    let Config { lock, session_lifetime, lease_lifetime, unattended, .. } = config;
    let demo = cloud("demo");
    let (confirms, prompting) = (config.requires_confirmation(&demo), config.prompting(&demo));
    format!("{lock:?} {session_lifetime:?} {lease_lifetime:?} {unattended} {confirms} {prompting:?}")
}

#[test]
fn of_two_limits_the_stricter_one_is_in_force() {
    for (key, value, stricter, looser) in LIMITS {
        let line = |value: &str| format!("{key} = {value}\n");
        assert_ne!(
            said(&load("", &line(looser))),
            said(&load(&line(value), "")),
            "{key}: they are told apart"
        );

        let (files, config) = Files::read(&line(value), &line(looser));
        let config = config.unwrap();
        assert_eq!(said(&config), said(&load(&line(value), "")), "{key}: the system's");
        let (user, theirs) = (files.path("user.toml"), files.path("system.toml"));
        let why = format!("{key} of {user} is not in force: {theirs} is stricter");
        assert_eq!(config.overruled, [why]);
        assert_eq!(config.origin(key), theirs);

        let (files, config) = Files::read(&line(value), &line(stricter));
        let config = config.unwrap();
        assert_eq!(said(&config), said(&load(&line(stricter), "")), "{key}: the user's");
        assert_eq!((&config.overruled[..], config.origin(key)), (&[][..], files.path("user.toml")));
    }
}

#[test]
fn no_table_of_a_host_leads_past_the_systems_limits() {
    let system =
        "confirm = true\n[prompt]\ncool_down = \"3min\"\n[hosts.strict.prompt]\ncool_down = \"9min\"\n";
    let own = "[hosts.demo]\nconfirm = false\n[hosts.demo.prompt]\ncool_down = \"1min\"\n\
               [hosts.strict.prompt]\ncool_down = \"5min\"\n[hosts.fine.prompt]\ncool_down = \"4min\"\n";
    let config = load(system, own);
    assert!(config.requires_confirmation(&cloud_at("x", "demo")));
    let minutes = |host: &str| config.prompting(&cloud_at("x", host)).cool_down.as_mins();
    assert_eq!(["demo", "strict", "fine", "other"].map(minutes), [3, 9, 4, 3]);
    let keys: Vec<_> = config.overruled.iter().filter_map(|why| why.split(' ').next()).collect();
    assert_eq!(keys, ["hosts.demo.confirm", "hosts.demo.prompt.cool_down", "hosts.strict.prompt.cool_down"]);
}

#[test]
fn a_file_that_is_wrong_is_named_and_nothing_of_it_is_guessed() {
    let wrong = [
        ("", "[lock]\nidel = \"30min\"\n", "user.toml"),
        ("", "[lock]\nidle = \"soon\"\n", "user.toml"),
        ("", "[lock]\nidle = 30\n", "user.toml"),
        ("", "[session]\nlifetime = \"0s\"\n", "user.toml"),
        ("", "[session]\nlifetime = \"11y\"\n", "user.toml"),
        ("", "[prompt]\ncool_down = \"off\"\n", "user.toml"),
        ("", "[hosts.demo.prompt]\nper_hour = 1\n", "user.toml"),
        ("", "[clouds.demo]\nconfirm = true\n", "user.toml"),
        ("locked = [\"confirm\"]\n", "", "system.toml"),
        ("[lease]\nunattended = \"no\"\n", "[lease]\nunattended = true\n", "system.toml"),
    ];
    for (system, user, named) in wrong {
        let (files, config) = Files::read(system, user);
        let error = config.unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig, "{system}{user}");
        assert!(error.detail.starts_with(&files.path(named)), "{}", error.detail);
        assert_eq!(error.remedy, Some(format!("correct {}", files.path(named))));
    }
}

#[test]
fn a_real_agent_keeps_to_the_systems_own_file_and_says_what_is_not_in_force() {
    let sandbox = Sandbox::new();
    let etc = sandbox.path("etc/keystone-broker");
    fs::create_dir_all(&etc).unwrap();
    fs::write(etc.join("config.toml"), "[session]\nlifetime = \"8h\"\n").unwrap();
    let own = sandbox.paths().config;
    fs::write(&own, "vault = \"memory\"\nfacade_port = 0\n[session]\nlifetime = \"off\"\n").unwrap();
    // Only within this command is the directory part of /etc.
    let mount = "mount -t overlay overlay -o \"lowerdir=$1:/etc\" /etc && exec \"$2\" agent start";
    let mut command = sandbox.command("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", mount, "sh"]).arg(sandbox.path("etc")).arg(KSB);
    end_of(spawn::start(&mut command)).ok();

    let why = format!(
        "session.lifetime of {} is not in force: /etc/keystone-broker/config.toml is stricter",
        own.display()
    );
    let status = sandbox.run(&["status"]).ok().stdout;
    assert!(status.contains(&format!("NOTE: {why}\n")), "{status}");
    let status: Value = serde_json::from_str(&sandbox.run(&["status", "--json"]).ok().stdout).unwrap();
    assert_eq!(status["notices"], json!([why]));
    assert!(sandbox.agent_log().contains(&why), "{}", sandbox.agent_log());
}
