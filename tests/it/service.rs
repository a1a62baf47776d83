//! `ksb service` where systemd is a stand-in that notes what it was told. The real one: `real/service.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::desk::Desk;
use crate::support::port;

const SOCKET: &str = "keystone-broker.socket";

/// A desk with a `systemctl`, for which every unit is as `becomes` said last.
struct Host {
    desk: Desk,
}

impl Host {
    fn with(desk: Desk) -> Self {
        let desk = desk.without_pythons();
        let folder = desk.sandbox.path("bin");
        let (state, told) = (desk.sandbox.path("state"), desk.sandbox.path("told"));
        let script = format!(
            "#!/bin/sh\necho \"$*\" >> '{}'\n[ \"$2\" != is-active ] || {{ read state < '{}'; echo $state; }}\n",
            told.display(),
            state.display()
        );
        fs::write(folder.join("systemctl"), script).unwrap();
        fs::set_permissions(folder.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
        let host = Self { desk };
        host.becomes("inactive");
        host
    }

    fn becomes(&self, state: &str) {
        fs::write(self.desk.sandbox.path("state"), format!("{state}\n")).unwrap();
    }

    /// What systemd was told to change since the last time.
    fn told(&self) -> Vec<String> {
        let told = fs::read_to_string(self.desk.sandbox.path("told")).unwrap_or_default();
        fs::write(self.desk.sandbox.path("told"), "").unwrap();
        let asks = |line: &&str| !["show", "is-active"].contains(&line.split(' ').nth(1).unwrap());
        told.lines().filter(asks).map(str::to_owned).collect()
    }

    fn unit(&self) -> PathBuf {
        self.desk.sandbox.path("home/.config/systemd/user").join(SOCKET)
    }
}

#[test]
fn who_is_signed_in_in_memory_only_is_not_forgotten() {
    let host = Host::with(Desk::new());
    let desk = &host.desk;
    desk.run_and_sign_in(&["login"], "alice").ok();
    let refuses = |args: &[&str]| {
        let refused = desk.run(args);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for said in ["1 session(s) are in its memory only", "ksb logout --all", "ksb agent stop"] {
            assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
        }
        assert_eq!(host.told(), [""; 0]);
        desk.run(&["token"]).ok();
    };
    refuses(&["service", "install"]);
    assert!(!host.unit().exists());

    desk.run(&["agent", "stop"]).ok();
    desk.run(&["service", "install"]).ok();
    assert!(host.told().contains(&format!("--user restart {SOCKET}")));
    // Now it is the service's.
    host.becomes("active");
    desk.run_and_sign_in(&["login"], "alice").ok();
    refuses(&["service", "install"]);
    refuses(&["service", "uninstall"]);
    assert!(host.unit().exists());

    desk.run(&["logout", "--all"]).ok();
    desk.run(&["service", "uninstall"]).ok();
    assert!(host.told().contains(&format!("--user disable --now --quiet {SOCKET}")));
    assert!(!host.unit().exists());
}

#[test]
fn who_is_in_the_vault_stays_signed_in() {
    let host = Host::with(Desk::with_vault());
    let desk = &host.desk;
    desk.run_and_sign_in(&["login"], "alice").ok();
    let before = desk.sandbox.agent_pid();
    desk.run(&["service", "install"]).ok();
    desk.run(&["token"]).ok();
    assert_ne!(desk.sandbox.agent_pid(), before);
    assert_eq!(desk.keystone.logins(), 1);
}

#[test]
fn another_port_for_the_facade_is_missed_until_it_is_installed() {
    let host = Host::with(Desk::new());
    let desk = &host.desk;
    host.becomes("active");
    let outdated = || {
        let found: Value = serde_json::from_str(&desk.run(&["doctor", "--json"]).stdout).unwrap();
        let service = found.as_array().unwrap().iter().find(|each| each["check"] == "service").unwrap();
        let by_doctor = service["finding"] == "warn" && service["remedy"] == "ksb service install";
        let shown = desk.run(&["service", "status"]).ok().stdout;
        assert_eq!(shown.contains("To mend that: ksb service install"), by_doctor, "{shown}{service}");
        by_doctor
    };
    desk.run(&["service", "install"]).ok();
    assert!(!outdated());
    let port = port::free();
    fs::write(desk.sandbox.paths().config, format!("vault = \"memory\"\nfacade_port = {port}\n")).unwrap();
    assert!(outdated());
    desk.run(&["service", "install"]).ok();
    assert!(fs::read_to_string(host.unit()).unwrap().contains(&format!("127.0.0.1:{port}")));
    assert!(!outdated());
}

#[test]
fn where_there_is_a_systemd_the_desktop_starts_nothing_any_more() {
    let host = Host::with(Desk::new());
    let desk = &host.desk;
    let autostart = desk.sandbox.path("home/.config/autostart/keystone-broker.desktop");
    fs::create_dir_all(autostart.parent().unwrap()).unwrap();
    fs::write(&autostart, "[Desktop Entry]\n").unwrap();
    assert!(desk.run(&["service", "status"]).ok().stdout.starts_with("installed: your desktop"));
    desk.run(&["service", "install"]).ok();
    assert!(!autostart.exists());
    let shown = desk.run(&["service", "status"]).ok().stdout;
    assert!(shown.starts_with(&format!("installed: {SOCKET} is ")), "{shown}");
}
