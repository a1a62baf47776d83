//! `config.toml`: the system's file, the person's above it, and what the system locks.

use std::fs;

use jiff::SignedDuration;
use keystone_broker::config::{Config, Lock};
use keystone_broker::error::{Code, Error};
use keystone_broker::model::Cloud;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::sandbox::{KSB, Sandbox, end_of};
use crate::support::spawn;

/// Two files in a folder of the test's.
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

fn cloud(name: &str) -> Cloud {
    let cloud = json!({"name": name, "auth_url": "https://keystone.example/v3", "protocol": "openid"});
    serde_json::from_value(cloud).unwrap()
}

#[test]
fn without_a_file_there_are_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::layered(&folder.path().join("a"), &folder.path().join("b")).unwrap();
    assert_eq!(config.lock, Lock { idle: None, on_screen_lock: false, on_sleep: false });
    assert_eq!((config.session_lifetime, config.lease_lifetime, config.unattended), (None, None, true));
    assert!(!config.confirms(Some("demo")));
    let prompting = config.prompting(Some("demo"));
    assert_eq!(prompting.programs, None);
    assert_eq!((prompting.per_hour, prompting.cool_down), (20, SignedDuration::from_mins(1)));
}

#[test]
fn the_persons_own_file_goes_before_the_systems() {
    let system = "browser = \"theirs {url}\"\nconfirm = true\n[lock]\nidle = \"30min\"\non_sleep = true\n\
                  [session]\nlifetime = \"12h\"\n[lease]\nunattended = false\n";
    let config = load(system, "");
    assert_eq!(config.browser(&cloud("demo")).as_deref(), Some("theirs {url}"));
    assert_eq!(config.lock.idle, Some(SignedDuration::from_mins(30)));
    assert_eq!(config.session_lifetime, Some(SignedDuration::from_hours(12)));
    assert!(config.lock.on_sleep && !config.unattended && config.confirms(Some("demo")));

    let own = "browser = \"own {url}\"\nconfirm = false\n[lock]\nidle = \"off\"\non_sleep = false\n\
               [session]\nlifetime = \"1d12h\"\n[lease]\nunattended = true\n";
    let config = load(system, own);
    assert_eq!(config.browser(&cloud("demo")).as_deref(), Some("own {url}"));
    assert_eq!((config.lock.idle, config.session_lifetime), (None, Some(SignedDuration::from_hours(36))));
    assert!(!config.lock.on_sleep && config.unattended && !config.confirms(Some("demo")));
    assert_eq!(config.overruled, [""; 0]);
}

#[test]
fn a_cloud_may_have_it_otherwise() {
    let own = "confirm = true\n[prompt]\nper_hour = 5\n[clouds.demo]\nconfirm = false\n\
               logout_url = \"https://idp.example/out\"\n[clouds.demo.prompt]\nper_hour = 2\nprograms = [\"tofu\"]\n";
    let config = load("[clouds.demo.prompt]\ncool_down = \"5min\"\n", own);
    assert!(!config.confirms(Some("demo")) && config.confirms(Some("other")));
    assert_eq!(config.logout_url(&cloud("demo")).unwrap().as_str(), "https://idp.example/out");
    let demo = config.prompting(Some("demo"));
    assert_eq!((demo.per_hour, demo.programs), (2, Some(&["tofu".to_owned()][..])));
    assert_eq!(demo.cool_down, SignedDuration::from_mins(5));
    let other = config.prompting(Some("other"));
    assert_eq!((other.per_hour, other.programs), (5, None));
}

/// Key, the system's value, a stricter one, a looser one.
const LIMITS: [(&str, &str, &str, &str); 10] = [
    ("confirm", "true", "true", "false"),
    ("lease.lifetime", "\"8h\"", "\"1h\"", "\"off\""),
    ("lease.unattended", "false", "false", "true"),
    ("lock.idle", "\"30min\"", "\"10min\"", "\"31min\""),
    ("lock.on_screen_lock", "true", "true", "false"),
    ("lock.on_sleep", "true", "true", "false"),
    ("prompt.cool_down", "\"5min\"", "\"6min\"", "\"4min\""),
    ("prompt.per_hour", "3", "2", "4"),
    ("prompt.programs", "[\"tofu\", \"openstack\"]", "[\"tofu\"]", "[\"tofu\", \"evil\"]"),
    ("session.lifetime", "\"12h\"", "\"8h\"", "\"off\""),
];

/// Everything that is in force.
fn said(config: &Config) -> String {
    let Config { lock, session_lifetime, lease_lifetime, unattended, .. } = config;
    let (confirms, prompting) = (config.confirms(Some("demo")), config.prompting(Some("demo")));
    format!("{lock:?} {session_lifetime:?} {lease_lifetime:?} {unattended} {confirms} {prompting:?}")
}

#[test]
fn what_the_system_locks_can_be_made_stricter_and_not_looser() {
    for (key, value, stricter, looser) in LIMITS {
        let system = format!("locked = [{key:?}]\n{key} = {value}\n");

        let loosened = said(&load("", &format!("{key} = {looser}\n")));
        assert_ne!(loosened, said(&load(&system, "")), "{key}: the test tells the two apart");

        let (files, config) = Files::read(&system, &format!("{key} = {looser}\n"));
        let config = config.unwrap();
        assert_eq!(said(&config), said(&load(&system, "")), "{key}: the system's value is in force");
        let (user, theirs) = (files.path("user.toml"), files.path("system.toml"));
        let why = format!("{key} of {user} is not in force: {theirs} locks it");
        assert_eq!(config.overruled, [why]);
        assert_eq!(config.origin(key), theirs);

        let config = load(&system, &format!("{key} = {stricter}\n"));
        assert_eq!(
            said(&config),
            said(&load(&format!("{key} = {stricter}\n"), "")),
            "{key}: the stricter one is"
        );
        assert_eq!(config.overruled, [""; 0]);

        let unlocked = format!("{key} = {value}\n");
        let config = load(&unlocked, &format!("{key} = {looser}\n"));
        assert_eq!(said(&config), said(&load(&format!("{key} = {looser}\n"), "")), "{key}: a default only");
    }
}

#[test]
fn no_table_of_a_cloud_leads_past_a_locked_key() {
    let system = "locked = [\"confirm\", \"prompt.per_hour\"]\nconfirm = true\n[prompt]\nper_hour = 3\n\
                  [clouds.strict.prompt]\nper_hour = 1\n";
    let own = "[clouds.demo]\nconfirm = false\n[clouds.demo.prompt]\nper_hour = 9\n\
               [clouds.strict.prompt]\nper_hour = 2\n[clouds.fine.prompt]\nper_hour = 2\n";
    let config = load(system, own);
    assert!(config.confirms(Some("demo")));
    let per_hour = ["demo", "strict", "fine", "other"].map(|name| config.prompting(Some(name)).per_hour);
    assert_eq!(per_hour, [3, 1, 2, 3]);
    let keys: Vec<_> = config.overruled.iter().filter_map(|why| why.split(' ').next()).collect();
    assert_eq!(keys, ["clouds.demo.prompt.per_hour", "clouds.demo.confirm", "clouds.strict.prompt.per_hour"]);
    // One cloud's value alone is one that holds.
    let config =
        load("locked = [\"confirm\"]\n[clouds.prod]\nconfirm = true\n", "[clouds.prod]\nconfirm = false\n");
    assert!(config.confirms(Some("prod")) && !config.confirms(Some("demo")));
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
        ("", "[clouds.demo.prompt]\nper_hour = -1\n", "user.toml"),
        ("", "locked = [\"confirm\"]\n", "user.toml"),
        ("locked = [\"browser\"]\n", "", "system.toml"),
        ("locked = [\"prompt.per_hour\"]\n", "[prompt]\nper_hour = 1000\n", "system.toml"),
        ("locked = [\"session.lifetime\"]\n[lease]\nlifetime = \"1h\"\n", "", "system.toml"),
        ("lockd = [\"confirm\"]\n", "", "system.toml"),
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
    fs::write(etc.join("config.toml"), "locked = [\"session.lifetime\"]\n[session]\nlifetime = \"8h\"\n")
        .unwrap();
    let own = sandbox.paths().config;
    fs::write(&own, "vault = \"memory\"\nfacade_port = 0\n[session]\nlifetime = \"off\"\n").unwrap();
    // Only within this command is the folder part of /etc.
    let mount = "mount -t overlay overlay -o \"lowerdir=$1:/etc\" /etc && exec \"$2\" agent --ensure";
    let mut command = sandbox.command("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", mount, "sh"]).arg(sandbox.path("etc")).arg(KSB);
    end_of(spawn::start(&mut command)).ok();

    let why = format!(
        "session.lifetime of {} is not in force: /etc/keystone-broker/config.toml locks it",
        own.display()
    );
    let status = sandbox.run(&["status"]).ok().stdout;
    assert!(status.contains(&format!("NOTE: {why}\n")), "{status}");
    let status: Value = serde_json::from_str(&sandbox.run(&["status", "--json"]).ok().stdout).unwrap();
    assert_eq!(status["notices"], json!([why]));
    assert!(sandbox.agent_log().contains(&why), "{}", sandbox.agent_log());
}
