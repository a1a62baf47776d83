//! The faults that other tests make, as `ksb doctor` sees them: each is named, with what helps.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use keystone_broker::audit;
use keystone_broker::platform::clock::SystemClock;
use serde_json::{Value, json};

use super::{assert_names, chmod, findings, of};
use crate::handover::{install, older, own, run, taken_over};
use crate::support::agent::Agent;
use crate::support::desk::Desk;
use crate::support::keystone::{Fault, Keystone};
use crate::support::proxy::Proxy;
use crate::support::spawn;

fn doctor(desk: &Desk) -> Vec<Value> {
    findings(&desk.run(&["doctor", "--json"]))
}

/// The vault of this desk.
fn vault(desk: &Desk) -> PathBuf {
    let files = fs::read_dir(desk.sandbox.paths().state).unwrap().map(|entry| entry.unwrap().path());
    let mut files = files.filter(|path| path.extension().is_none());
    files.find(|path| path.to_str().unwrap().contains("/vault-")).unwrap()
}

/// A vault's bytes with another second line.
fn with_header(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let lines: Vec<_> = bytes.splitn(3, |byte| *byte == b'\n').collect();
    let mut header = serde_json::from_slice(lines[1]).unwrap();
    change(&mut header);
    [lines[0], b"\n", header.to_string().as_bytes(), b"\n", lines[2]].concat()
}

#[test]
fn vaults_that_no_agent_can_open_are_told_apart_with_and_without_an_agent() {
    let desk = Desk::with_quick_vault().without_pythons();
    desk.run_and_sign_in(&["login"], "alice").ok();
    desk.run(&["agent", "stop"]).ok();
    let file = vault(&desk);
    let good = fs::read(&file).unwrap();
    let clouds = desk.sandbox.path("home/.config/openstack/clouds.yaml");
    let with_demo = fs::read_to_string(&clouds).unwrap();
    // With no cloud to ask, none is started.
    let at_rest = |desk: &Desk| {
        desk.run(&["agent", "stop"]).ok();
        desk.sandbox.clouds("clouds: {}\n");
        let found = doctor(desk);
        assert!(of(&found, "agent", "").1.starts_with("none runs"));
        fs::write(&clouds, &with_demo).unwrap();
        found
    };
    assert_names(&at_rest(&desk), ("vault", ""), "ok", "its key is kept by your passphrase", "");
    for (bytes, why, helps, then) in [
        (good[..20].to_vec(), "is damaged", "ksb login", ("was put aside as", "ksb login")),
        (
            b"keystone-broker vault 2\nwho knows".to_vec(),
            "a newer ksb wrote it",
            "use that version",
            ("a newer ksb wrote it", "use that version"),
        ),
        (
            with_header(&good, |header| header["machine"] = "far".into()),
            "on another machine",
            "; ksb agent stop; ksb login",
            ("on another machine", "; ksb agent stop; ksb login"),
        ),
    ] {
        fs::write(&file, bytes).unwrap();
        let found = at_rest(&desk);
        assert_names(&found, ("vault", ""), "fail", why, helps);
        assert!(of(&found, "vault", "").1.contains(file.to_str().unwrap()), "{found:?}");
        assert_names(&doctor(&desk), ("vault", ""), "warn", then.0, then.1);
    }
    desk.run(&["agent", "stop"]).ok();
    fs::write(&file, &good).unwrap();
    assert_names(&doctor(&desk), ("vault", ""), "ok", "open; its key is kept by your passphrase", "");
}

#[test]
fn an_entry_that_ksb_wrote_is_as_good_as_its_lease() {
    let desk = Desk::with_quick_vault().without_pythons();
    desk.run_and_sign_in(&["login"], "alice").ok();
    desk.run(&["clouds", "add", "demo"]).ok();
    let entry = ("clouds-add", "demo-ksb");
    assert_names(&doctor(&desk), entry, "ok", "its lease is good until", "");
    desk.run(&["lock"]).ok();
    assert_names(&doctor(&desk), entry, "unknown", "the agent is locked", "");
    desk.run(&["unlock"]).ok();
    desk.run(&["logout", "demo"]).ok();
    assert_names(&doctor(&desk), entry, "fail", "its lease has ended", "ksb clouds add");
}

#[test]
fn a_key_that_is_gone_is_missed_before_an_agent_has_to_start_without_it() {
    let desk = Desk::with_quick_vault().without_pythons();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let file = vault(&desk);
    let good = fs::read(&file).unwrap();
    for (key, why, helps) in [
        (
            json!({"kept_by": "kernel", "boot": "an earlier one"}),
            "its key ended with the reboot",
            "ksb login",
        ),
        // No desktop is here.
        (json!({"kept_by": "keyring"}), "cannot be asked: there is none", "log in to the desktop"),
    ] {
        fs::write(&file, with_header(&good, |header| header["key"] = key)).unwrap();
        let found = doctor(&desk);
        assert_names(&found, ("vault", ""), "warn", "open; ", helps);
        assert!(of(&found, "vault", "").1.contains(why), "{found:?}");
    }
}

#[test]
fn what_the_agent_has_to_say_besides_is_a_line_of_its_own() {
    let desk = Desk::with_quick_vault().without_pythons();
    // Nothing can be written there.
    fs::create_dir_all(audit::file_in(&desk.sandbox.paths().state)).unwrap();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let found = doctor(&desk);
    let said: Vec<_> =
        found.iter().filter(|one| one["detail"].as_str().unwrap().contains("audit log")).collect();
    assert_eq!(said.len(), 1, "{found:?}");
    assert_eq!(said[0]["finding"], "warn");
    assert!(said[0]["detail"].as_str().unwrap().contains("is not complete"), "{said:?}");
}

#[test]
fn a_stranger_at_the_facades_port_is_named() {
    let desk = Desk::new().without_pythons();
    let squatter = spawn::undisturbed(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = squatter.local_addr().unwrap().port();
    fs::write(desk.sandbox.paths().config, format!("vault = \"memory\"\nfacade_port = {port}\n")).unwrap();
    let holder = format!("process {}", std::process::id());
    let found = doctor(&desk);
    assert_names(
        &found,
        ("facade", ""),
        "fail",
        &holder,
        "set facade_port in config.toml, then: ksb agent stop",
    );
    assert!(of(&found, "facade", "").1.contains(&format!("port {port}")), "{found:?}");
}

#[test]
fn an_older_agent_is_named_and_asked_to_hand_over() {
    let desk = Desk::new().without_pythons();
    install(&desk, &older());
    run(&desk, &["agent", "start"]).ok();
    let is_named = |helps| assert_names(&doctor(&desk), ("agent", ""), "warn", ": this is ksb ", helps);
    // Its program is the one that is installed: there is nothing that it could hand over to.
    is_named("ksb agent stop; ");
    is_named("ksb agent stop; ");
    install(&desk, own());
    is_named("ksb status: it hands over");
    taken_over(&desk);
    assert_names(&doctor(&desk), ("agent", ""), "ok", env!("CARGO_PKG_VERSION"), "");
}

#[test]
fn files_with_secrets_that_others_can_read_or_change_are_named() {
    let desk = Desk::with_quick_vault().without_pythons();
    let [token, passphrase] = ["token", "passphrase"].map(|name| desk.sandbox.path(name));
    fs::write(&token, "a token\n").unwrap();
    chmod(&token, 0o600);
    desk.write_cloud(&format!("sign_in: workload\n      token_file: {}", token.display()));
    for (check, subject, file) in [("token-file", "demo", &token), ("passphrase-file", "", &passphrase)] {
        for (mode, finding, helps) in
            [(0o644, "warn", "chmod 600 "), (0o622, "fail", "chmod go-w "), (0o600, "ok", "")]
        {
            chmod(file, mode);
            let found = doctor(&desk);
            assert_names(&found, (check, subject), finding, file.to_str().unwrap(), helps);
        }
    }
    fs::remove_file(&token).unwrap();
    assert_names(&doctor(&desk), ("token-file", "demo"), "fail", "No such file", "put the secret there");
}

#[test]
fn an_identity_provider_that_keystone_does_not_know_is_named() {
    let desk = Desk::new().without_pythons();
    let place = "GET /v3/auth/OS-FEDERATION/identity_providers/lab-idp/protocols/openid/websso";
    let _unknown = desk.keystone.on(place, Fault::Status(404));
    let helps = "correct identity_provider and protocol: ksb clouds show demo";
    assert_names(&doctor(&desk), ("websso", "demo"), "fail", "404", helps);

    // Where everybody is sent to the web server's own identity provider first, only a sign-in shows it.
    let desk = Desk::new().without_pythons();
    desk.sandbox.clouds(&format!("clouds:\n{}", desk.entry("demo", "").replace("lab-idp", "no-such-idp")));
    let why = ", and knows identity provider no-such-idp, shows at a sign-in";
    assert_names(&doctor(&desk), ("trusted_dashboard", "demo"), "unknown", why, "ksb doctor demo --try");
}

#[test]
fn a_client_that_may_not_use_the_device_grant_is_named() {
    let desk = Desk::new().without_pythons().with_refresh_tokens();
    let clouds = desk.sandbox.path("home/.config/openstack/clouds.yaml");
    let text = fs::read_to_string(&clouds).unwrap();
    fs::write(&clouds, text.replace("client_id: cli", "client_id: cli\n      sign_in: oidc_device")).unwrap();
    let refusal = json!({"error": "unauthorized_client", "error_description": "Client is not allowed to initiate OAuth 2.0 Device Authorization Grant"});
    let _refused = desk.keystone.on("POST /idp/device", Fault::Says(401, refusal.to_string()));
    let outcome = desk.run(&["doctor", "--try", "--json"]);
    assert_eq!(outcome.code, Some(1));
    let helps = "ask the operator to allow client cli the device authorization grant";
    assert_names(&findings(&outcome), ("sign-in", "demo"), "fail", "unauthorized_client", helps);
}

#[test]
fn proxies_before_the_identity_provider_alone_and_their_pages_are_named() {
    let keystone = Keystone::start(Arc::new(SystemClock));
    let agent = Agent::start(Arc::new(SystemClock));
    let endpoint = format!("{}/idp/.well-known/openid-configuration", keystone.url());
    let cloud = json!({
        "name": "demo", "auth_url": format!("{}/v3", keystone.url()), "identity_provider": "lab-idp", "protocol": "openid",
        "sign_in": {"way": "oidc_code", "redirect_port": 0, "oidc": {"discovery_endpoint": endpoint, "client_id": "cli"}},
    });
    let probe = |cloud: &Value| {
        let answer = agent.api().post("/v1/probe", &json!({"cloud": cloud}));
        answer.json["findings"].as_array().unwrap().clone()
    };
    let denied = Proxy::that_says("407 Proxy Authentication Required", "<h1>Who are you?</h1>");
    let portal = Proxy::that_says("200 OK", "<h1>Welcome to the hotel</h1>");
    let gone = Proxy::that_says("200 OK", "").url();
    // Without TLS the portal's page comes back as if the other end had sent it.
    let in_its_place = format!("or the proxy {} answered in its place", portal.address());
    for (proxy, check, why, helps) in [
        (denied.url(), "proxy", "without a name and password", "https_proxy=http://NAME:PASSWORD@"),
        (gone, "proxy", "does not answer", "no_proxy=127.0.0.1"),
        (portal.url(), "discovery", &*in_its_place, "no_proxy=127.0.0.1"),
    ] {
        let mut keystones = cloud.clone();
        keystones["proxy"] = proxy.as_str().into();
        assert_names(&probe(&keystones), (check, "demo"), "fail", why, helps);

        let mut providers = cloud.clone();
        providers["sign_in"]["oidc"]["proxy"] = proxy.as_str().into();
        let found = probe(&providers);
        assert_eq!(of(&found, "discovery", "demo").0, "ok", "Keystone is not behind it");
        assert_names(&found, ("identity-provider", "demo"), "fail", why, helps);
    }
}
