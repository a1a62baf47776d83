//! Programs without a user at the real Keycloak and Keystone: nobody is asked, and no browser opens.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Certificate, Client};
use serde_json::{Value, json};

use super::front::{Front, stack};
use super::keystone::AGENT;
use super::program::run;
use crate::support::sandbox::within;

const BEARER: &str = "/v3/OS-FEDERATION/identity_providers/lab-idp/protocols/openid/auth";
const ISSUE: [&str; 6] = ["token", "issue", "-f", "value", "-c", "id"];

pub fn entry(front: &Front, name: &str, options: &str) -> String {
    entry_of(front, name, "v3broker", &format!(", sign_in: workload{options}"))
}

fn entry_of(front: &Front, name: &str, auth_type: &str, options: &str) -> String {
    let scope = "project_name: demo, project_domain_name: lab";
    front
        .entry_at(&front.auth_url(), name, &format!("{scope}{options}"))
        .replace("auth_type: v3broker", &format!("auth_type: {auth_type}"))
}

/// Bearer exchanges that Keystone was asked for.
fn exchanges(front: &Front) -> usize {
    let all = front.all_requests();
    all.iter().filter(|request| request.path.contains(BEARER) && request.agent != AGENT).count()
}

/// An access token of Keycloak's, as a CI system or a platform would hand it to a program.
pub fn bearer(user: &str) -> String {
    let password = stack(&format!("PASSWORD_{}", user.to_uppercase()));
    let fields = [
        ("grant_type", "password"),
        ("client_id", "cli"),
        ("username", user),
        ("password", &password),
        ("scope", "openid profile"),
    ];
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let ca = Certificate::from_pem(&fs::read(stack("CA")).unwrap()).unwrap();
    let client = Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
    let request = client
        .post(format!("{}/protocol/openid-connect/token", stack("ISSUER")))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(body);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let answer: Value =
            serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    })
}

/// Whose token of the project it is that a program without a user gets, by `ksb` and by `openstack`.
fn user(front: &Front, cloud: &str, variables: &[(&str, &str)]) -> Value {
    let mut alone = vec![("KSB_PROMPT", "never"), ("OS_CLOUD", cloud)];
    alone.extend(variables);
    let token = front.ksb_with(&alone, &["token"]).ok().stdout.trim().to_owned();
    let mut openstack = front.openstack(&ISSUE);
    openstack.envs(alone);
    assert_eq!(run(openstack).ok().stdout.trim(), token, "`openstack` and `ksb` are one");
    let seen = front.keystone.look_at(&token).unwrap();
    assert_eq!(seen["project"]["name"], "demo");
    seen["user"]["name"].clone()
}

#[test]
fn a_file_a_variable_and_an_entry_sign_in_and_nobody_is_asked() {
    let front = Front::free();
    let file = front.sandbox.path("token");
    front.clouds(&[
        entry(&front, "file", &format!(", token_file: {}", file.display())),
        entry(&front, "env", ", token_env: LAB_ID_TOKEN"),
        entry_of(&front, "entry", "v3oidcaccesstoken", &format!(", access_token: {}", bearer("bob"))),
    ]);
    let me = front.user();
    fs::write(&file, bearer(&me) + "\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!((user(&front, "file", &[]), exchanges(&front)), (json!(me), 1));

    let (mine, bobs) = (bearer(&me), bearer("bob"));
    assert_eq!(user(&front, "env", &[("LAB_ID_TOKEN", &mine)]), me);
    assert_eq!(
        user(&front, "env", &[("LAB_ID_TOKEN", &bobs)]),
        "bob",
        "another user's shell is another user"
    );
    assert_eq!(user(&front, "env", &[("LAB_ID_TOKEN", &bearer(&me))]), me);
    assert_eq!(exchanges(&front), 3, "the next token of the same user is the same sign-in");
    let unset = front.ksb_with(&[("KSB_PROMPT", "never"), ("OS_CLOUD", "env")], &["token"]);
    assert!(unset.stderr.contains("the variable LAB_ID_TOKEN is not set"), "{unset:?}");

    // keystoneauth's own entry, as it stands; `openstack` reads it with keystoneauth's own plugin.
    let token = front.ksb_with(&[("KSB_PROMPT", "never")], &["token", "entry"]).ok().stdout;
    assert_eq!(front.keystone.look_at(token.trim()).unwrap()["user"]["name"], "bob");
    let shown = front.ksb(&["clouds", "show", "entry", "--json"]).ok().stdout;
    assert!(shown.contains("••••") && !shown.contains("eyJ"), "{shown}");

    // The file is read again when the session is over, for whatever reason.
    let unscoped = front.token(&["file", "--unscoped"]);
    fs::write(&file, "not.any.more").unwrap();
    front.ksb(&["logout", "file"]).ok();
    assert!(!front.keystone.accepts(&unscoped));
    let refused = front.ksb_with(&[("KSB_PROMPT", "never")], &["token", "file"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("does not take the identity provider's token"), "{refused:?}");
    assert!(refused.stderr.contains(file.to_str().unwrap()), "{refused:?}");
    fs::write(&file, bearer(&me)).unwrap();
    assert_eq!(user(&front, "file", &[]), me);
    assert_eq!(front.browsers_opened(), 0);
    assert!(!front.sandbox.agent_log().contains("eyJ"));
}

#[test]
fn a_command_has_its_time_and_runs_only_when_it_must() {
    let front = Front::free();
    let script = |name: &str, text: &str| {
        let path = front.sandbox.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path.display().to_string()
    };
    let (log, me) = (front.sandbox.path("ran"), front.user());
    let mint = script("mint", &format!("echo $1 >> '{}'; echo {}", log.display(), bearer(&me)));
    let hang = script("hang", "echo half-a-token; sleep 1000 & sleep 1000");
    let fail = script("fail", "echo no vault today >&2; exit 7");
    front.clouds(&[
        entry(&front, "mint", &format!(", token_command: \"{mint} 'for keystone'\"")),
        entry(&front, "hang", &format!(", token_command: {hang}, token_command_limit: 1")),
        entry(&front, "fail", &format!(", token_command: {fail}")),
    ]);
    assert_eq!(user(&front, "mint", &[]), me);
    assert_eq!(user(&front, "mint", &[]), me);
    assert_eq!(fs::read_to_string(&log).unwrap(), "for keystone\n", "once for all of them");

    let alone = [("KSB_PROMPT", "never")];
    for said in [front.ksb_with(&alone, &["token", "hang"]), {
        let mut openstack = front.openstack(&["--os-cloud", "hang", "token", "issue"]);
        openstack.envs(alone);
        run(openstack)
    }] {
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
        assert!(said.stderr.contains(&format!("`{hang}`")), "{said:?}");
        assert!(said.stderr.contains("took more than 1 s"), "{said:?}");
        assert!(!said.stderr.contains("half-a-token"), "{said:?}");
    }
    let said = front.ksb_with(&alone, &["token", "fail"]);
    assert!(said.stderr.contains("no vault today") && said.stderr.contains("exit status: 7"), "{said:?}");
    assert_eq!((exchanges(&front), front.browsers_opened()), (1, 0));

    // A cloned repository names a cloud that is known, and a command.
    let here = front.sandbox.path("home/clouds.yaml");
    let entry = entry(&front, "mint", &format!(", token_command: \"{mint} of-a-stranger\""));
    fs::write(&here, format!("clouds:\n{entry}")).unwrap();
    let refused = front.ksb_with(&alone, &["token", "mint"]);
    assert!(refused.stderr.contains("is not run: the entry lies in the current directory"), "{refused:?}");
    assert_eq!(fs::read_to_string(&log).unwrap(), "for keystone\n");
}

#[test]
fn a_client_signs_itself_in_by_keystoneauths_entry() {
    let mut front = Front::free();
    front.sandbox.set("KSB_LOG", "trace");
    let issuer = stack("ISSUER");
    let client =
        |secret: &str, endpoint: &str| format!(", client_id: ci, client_secret: '{secret}', {endpoint}");
    let discovery = format!("discovery_endpoint: {issuer}/.well-known/openid-configuration");
    let endpoint = format!("access_token_endpoint: {issuer}/protocol/openid-connect/token");
    let secret = stack("CI_SECRET");
    front.clouds(&[
        entry_of(&front, "theirs", "v3oidcclientcredentials", &client(&secret, &discovery)),
        entry(&front, "ours", &client(&secret, &discovery)),
        entry(&front, "endpoint", &client(&secret, &endpoint)),
        entry(&front, "wrong", &client("hunter2", &endpoint).replace("client_id: ci", "client_id: nobody")),
    ]);
    assert_eq!(user(&front, "ours", &[]), "service-account-ci");
    assert_eq!(user(&front, "endpoint", &[]), "service-account-ci");
    let token = front.ksb_with(&[("KSB_PROMPT", "never")], &["token", "theirs"]).ok().stdout;
    assert_eq!(token.trim(), front.token(&["ours"]), "the same client");
    let status = front.ksb(&["status"]).ok().stdout;
    assert!(status.contains("renews itself"), "{status}");
    let refused = front.ksb_with(&[("KSB_PROMPT", "never")], &["token", "wrong"]);
    assert!(
        refused.stderr.contains("invalid_client") && refused.stderr.contains("client nobody"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
    let shown = front.ksb(&["clouds", "show", "ours", "--json"]).ok().stdout;
    assert!(!shown.contains(&secret), "{shown}");
    let (log, basic) = (front.sandbox.agent_log(), STANDARD.encode(format!("ci:{secret}")));
    for secret in [&secret, &basic, "eyJ", "gAAAA"] {
        assert!(!log.contains(secret), "at its most verbose the agent tells a secret: {log}");
    }
    assert_eq!((exchanges(&front), front.browsers_opened()), (2, 0));
}

/// What answers a GitHub job at `ACTIONS_ID_TOKEN_REQUEST_URL`: there is no real one to be had. Returns the request.
fn github(listener: TcpListener, token: String) -> impl FnOnce() -> String {
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut asked, mut bytes) = (String::new(), [0; 4096]);
        while !asked.contains("\r\n\r\n") {
            let read = stream.read(&mut bytes).unwrap();
            asked.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        let body = json!({"count": 1, "value": token}).to_string();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        asked
    });
    move || within(move || served.join().unwrap())
}

#[test]
fn ci_jobs_sign_in_with_what_their_ci_gives_them() {
    let front = Front::free();
    let me = front.user();
    front.clouds(&[
        entry(&front, "github", ", token_audience: keystone"),
        entry(&front, "gitlab", ", token_env: KEYSTONE_ID_TOKEN"),
    ]);
    let none = front.ksb_with(&[("KSB_PROMPT", "never")], &["token", "github"]);
    assert!(none.stderr.contains("permissions: id-token: write"), "{none:?}");

    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/token?api-version=2.0", listener.local_addr().unwrap());
    let asked = github(listener, bearer(&me));
    let job =
        [("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-this-job")];
    assert_eq!(user(&front, "github", &job), me);
    let asked = asked();
    assert!(asked.starts_with("GET /token?api-version=2.0&audience=keystone HTTP/1.1\r\n"), "{asked}");
    assert!(asked.to_lowercase().contains("authorization: bearer of-this-job\r\n"), "{asked}");

    assert_eq!(user(&front, "gitlab", &[("KEYSTONE_ID_TOKEN", &bearer("bob"))]), "bob");
    assert_eq!((exchanges(&front), front.browsers_opened()), (2, 0));
}
