//! Nothing that is worth a sign-in is left lying about, also at the most verbose log level.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::elsewhere::signed_in_elsewhere;
use super::front::{Front, stack};
use super::program::run;
use super::wiretap::{Heard, Wiretap};
use crate::support::api::{Api, scope};
use crate::support::tool::Tool;

/// The fields that are secrets, of what is sent to Keycloak or comes from it.
const SECRET: [&str; 8] = [
    "access_token",
    "client_secret",
    "code",
    "code_verifier",
    "device_code",
    "id_token",
    "refresh_token",
    "token",
];

#[test]
fn no_secret_of_a_sign_in_or_renewal_is_in_a_log_a_process_list_an_environment_or_a_file() {
    let mut front = Front::free();
    let wiretap = Wiretap::start();
    front.sandbox.set("KSB_LOG", "trace").set("https_proxy", wiretap.url());
    // The tests' own: the entry has it, and nothing else should.
    front.sandbox.set("KSB_STACK_CLIENT_SECRET_POST", "").set("KSB_STACK_CLIENT_SECRET", "");
    let options = |client: &str| {
        let issuer = stack("ISSUER");
        format!(
            "discovery_endpoint: {issuer}/.well-known/openid-configuration, client_id: {client}, project_name: demo, \
             project_domain_name: lab"
        )
    };
    let secret = stack("CLIENT_SECRET_POST");
    let confidential = format!(
        "{}, client_secret: {secret}, token_endpoint_auth_method: client_secret_post",
        options("post")
    );
    let device = format!("{}, sign_in: oidc_device", options("cli"));
    let entry = |name: &str, options: &str| front.entry_at(&front.auth_url(), name, options);
    front.clouds(&[entry("demo", &confidential), entry("device", &device)]);
    front.ksb(&["agent", "start"]).ok();
    let api = Api::new(front.sandbox.paths().socket);
    let cloud = |name: &str| -> Value {
        let shown = front.ksb(&["clouds", "show", name, "--json"]).ok().stdout;
        serde_json::from_str::<Value>(&shown).unwrap()["cloud"].clone()
    };
    let mut canaries = Vec::new();

    // By code, in a browser elsewhere: what it brings back is typed in.
    let (mut demo, device) = (cloud("demo"), cloud("device"));
    // Nobody is shown it.
    assert_eq!(demo["sign_in"]["oidc"]["client_secret"], "••••");
    demo["sign_in"]["oidc"]["client_secret"] = secret.as_str().into();
    let sign_in = api.login(&demo).sign_in();
    let address = sign_in.json["elsewhere"].as_str().unwrap();
    let ended = signed_in_elsewhere(address, &front.user());
    for (url, names) in [(address, &["state", "nonce"][..]), (&ended, &["state", "code"])] {
        let url = url::Url::parse(url).unwrap();
        canaries.extend(
            url.query_pairs()
                .filter(|(name, _)| names.contains(&&**name))
                .map(|(_, value)| value.into_owned()),
        );
    }
    let paste = format!("/v1/sign-ins/{}/redirected", sign_in.id);
    api.post(&paste, &json!({"url": ended.replace("state=", "state=x")})).problem("token-refused");
    let taken = api.post(&paste, &json!({"url": ended}));
    assert_eq!(taken.status, 204, "{}", taken.text);
    assert_eq!(api.over(&sign_in.id)["state"], "done");
    // And on another device, by the user's own command.
    let telephone = front.start(&["login", "device"]);
    let address = telephone.says("device: sign in: ");
    let address = address.split("sign in: ").nth(1).unwrap().trim().to_owned();
    let mut approve = front.sandbox.command(stack("BROWSER"));
    run({
        approve.arg(&address);
        approve
    })
    .ok();
    let during = look_around(&front);
    telephone.ends().ok();

    // Renewed, each of them, after Keystone took everything back.
    for cloud in [&demo, &device] {
        let held = api.token_unprompted(cloud, &scope::project("demo")).token_id();
        let unscoped = api.token_unprompted(cloud, &scope::unscoped()).token_id();
        for token in [&held, &unscoped] {
            front.keystone.admin().revoke(token);
        }
        let next = api.token_instead_of(&held, cloud, &scope::project("demo")).token_id();
        canaries.extend([held, unscoped, next]);
    }
    // And what a tool has that holds a lease.
    let tool = Tool::of(&api.post("/v1/leases", &json!({"cloud": demo, "scope": scope::project("demo")})));
    let its_token = tool.token();
    tool.with(&its_token, "GET", "/v3/auth/projects").send();
    canaries.extend([tool.secret.clone(), tool.handle.clone(), its_token]);
    let after = look_around(&front);
    front.ksb(&["logout", "demo"]).ok();
    front.ksb(&["logout", "device"]).ok();
    front.ksb(&["agent", "stop"]).ok();

    let heard = wiretap.heard();
    let paths = ["/token", "/auth/device", "/revoke"];
    assert!(paths.iter().all(|path| heard.iter().any(|heard| heard.path.ends_with(path))), "all was heard");
    canaries.extend(heard.iter().flat_map(secrets_of));
    assert!(canaries.len() > 20 && canaries.contains(&secret), "{}", canaries.len());
    let log = front.sandbox.agent_log();
    assert!(log.contains("TRACE") && log.lines().count() > 30, "the log says a lot: {log}");
    let places = [during, after, vec![("log".into(), log)], files(&front.sandbox.path("home"))].concat();
    let audit = places.iter().find(|(name, _)| name.contains("/audit-")).unwrap();
    assert!(
        ["login", "sign-in", "renewal", "token", "lease", "logout"]
            .iter()
            .all(|action| { audit.1.contains(&format!("\"action\":\"{action}\"")) })
    );
    for canary in &canaries {
        assert!(canary.len() >= 16, "{canary}");
        for (name, text) in &places {
            assert!(!text.contains(canary.as_str()), "{canary} is in {name}");
        }
    }
}

fn secrets_of(heard: &Heard) -> Vec<String> {
    let sent = heard.form.iter().map(|(name, value)| (name.clone(), value.clone()));
    let answer = heard.answer.iter().filter_map(|(_, answer)| answer.as_object()).flatten();
    let came = answer.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    sent.chain(came).filter(|(name, _)| SECRET.contains(&name.as_str())).map(|(_, value)| value).collect()
}

/// Arguments and environment of every process that runs in this home.
fn look_around(front: &Front) -> Vec<(String, String)> {
    let home = format!("HOME={}", front.sandbox.path("home").display());
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<_> = fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|process| read(&process.join("environ")).split('\0').any(|variable| variable == home))
        .flat_map(|process| ["environ", "cmdline"].map(|name| process.join(name)))
        .map(|path| (path.display().to_string(), read(&path)))
        .collect();
    assert!(all.iter().any(|(_, text)| text.contains("agent")), "the agent at least: {all:?}");
    all
}

/// Every file below a directory but the user's own clouds.yaml.
fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| !path.ends_with("clouds.yaml"))
        .flat_map(|path| {
            if path.is_dir() {
                return files(&path);
            }
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            vec![(path.display().to_string(), text)]
        })
        .collect()
}
