//! `ksb setup`: from what people have to an entry that works; and what a hostile page gets out of it, which is nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::dashboard::{Dashboard, Says, missing, page, redirect};
use crate::support::desk::Desk;
use crate::support::sandbox::Outcome;

fn clouds(desk: &Desk) -> PathBuf {
    desk.sandbox.path("home/.config/openstack/clouds.yaml")
}

fn text(desk: &Desk) -> String {
    fs::read_to_string(clouds(desk)).unwrap()
}

/// What Horizon redirects to (`get_websso_url`).
fn websso(keystone: &str, way: &str) -> String {
    format!("{keystone}/v3/auth/OS-FEDERATION/{way}?origin=https://horizon.example/auth/websso/")
}

const OF_LAB: &str = "identity_providers/lab-idp/protocols/openid/websso";

/// Runs `ksb setup` without a sign-in or a question.
fn quietly(desk: &Desk, from: &str, more: &[&str]) -> Outcome {
    let port = desk.port.to_string();
    let fixed = ["setup", from, "--name", "new", "--redirect-port", &port, "--no-sign-in", "--yes"];
    desk.run(&[&fixed[..], more].concat())
}

/// The new entry as `ksb` understands it.
fn entry(desk: &Desk) -> serde_json::Value {
    let shown = desk.run(&["clouds", "show", "new", "--json"]).ok().stdout;
    serde_json::from_str::<serde_json::Value>(&shown).unwrap()["entry"].clone()
}

/// It fails, says why and what helps, and leaves clouds.yaml alone; nobody signed in anywhere.
#[track_caller]
fn assert_refused(desk: &Desk, outcome: &Outcome, why: &str) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(why) && outcome.stderr.contains(". Try: "), "{outcome:?}");
    assert!(!text(desk).contains("new:") && !text(desk).contains("# ksb setup"), "{}", text(desk));
    assert_eq!(desk.keystone.logins(), 0);
}

#[test]
fn from_horizons_address_to_a_token() {
    let desk = Desk::new().without_pythons();
    let before = text(&desk);
    let horizon = Dashboard::horizon(&[("lab", "The Lab", websso(desk.keystone.url(), OF_LAB))]);
    let port = desk.port.to_string();
    let words = [
        "setup",
        &horizon.url(),
        "--name",
        "new",
        "--redirect-port",
        &port,
        "--project-name",
        "demo",
        "--yes",
    ];
    let said = desk.run_and_sign_in(&words, "alice").ok().stdout;
    assert!(said.contains("identity provider  lab-idp\nprotocol           openid\n"), "{said}");
    assert!(
        said.contains("new: written to ") && said.contains("Next: openstack catalog list --os-cloud new"),
        "{said}"
    );
    assert_eq!(horizon.asked(), ["GET /", "GET /auth/login/?next=/", "POST /auth/login/"]);

    let after = text(&desk);
    let others: String =
        after.split_inclusive('\n').filter(|line| !line.trim_end().ends_with("# ksb setup")).collect();
    assert_eq!(others, before, "all else is as it was");
    let entry = entry(&desk);
    assert_eq!(entry["auth"]["identity_provider"], "lab-idp");
    assert_eq!(entry["auth"]["auth_url"], format!("{}/v3", desk.keystone.url()));
    let token = desk.run(&["token", "new"]).ok().stdout;
    assert!(desk.keystone.accepts(token.trim_end()));
    assert_eq!(desk.keystone.logins(), 1, "the sign-in that tried it is the one that counts");
}

#[test]
fn a_python_whose_openstack_cannot_use_the_entry_yet_is_named_with_what_helps() {
    let desk = Desk::new().without_pythons();
    let bin = desk.sandbox.path("bin");
    let python = bin.join("python3");
    let answer = serde_json::json!({
        "executable": python, "prefix": "/opt", "version": [3, 13], "sdk": true, "plugin": false, "pip": true, "managed": false,
    });
    fs::write(&python, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let url = desk.keystone.url().to_owned();
    let said = quietly(&desk, &url, &["--protocol", "openid", "--project-name", "demo"]).ok().stdout;
    let install = format!("  {} -m pip install ./plugin-shim\nNext: ", python.display());
    assert!(said.contains("openstacksdk without the plugin") && said.contains(&install), "{said}");
}

#[test]
fn a_horizon_that_redirects_by_itself_and_one_with_several_ways() {
    let desk = Desk::new().without_pythons();
    let to = websso(desk.keystone.url(), "websso/openid");
    let horizon = Dashboard::that_says(move |asked| match &*asked.path {
        "/" => redirect("/auth/login/"),
        _ => redirect(to.clone()),
    });
    quietly(&desk, &horizon.url(), &["--project-name", "demo"]).ok();
    let made = entry(&desk);
    assert_eq!((&made["auth"]["protocol"], made["auth"].get("identity_provider")), (&"openid".into(), None));

    let desk = Desk::new().without_pythons();
    let other = "identity_providers/other/protocols/saml2/websso";
    let ways = [
        ("lab", "The Lab", websso(desk.keystone.url(), OF_LAB)),
        ("other", "Others", websso(desk.keystone.url(), other)),
        ("openid", "Any", websso(desk.keystone.url(), "websso/openid")),
    ];
    let horizon = Dashboard::horizon(&ways);
    let outcome = quietly(&desk, &horizon.url(), &[]);
    assert!(outcome.stdout.contains("The Lab: identity provider lab-idp, protocol openid"), "{outcome:?}");
    assert!(outcome.stdout.contains("Others: identity provider other, protocol saml2"), "{outcome:?}");
    assert_refused(&desk, &outcome, "--identity-provider");
    quietly(&desk, &horizon.url(), &["--identity-provider", "lab-idp"]).ok();
    assert_eq!(entry(&desk)["auth"]["protocol"], "openid");
}

#[test]
fn from_skyline_a_vendor_profile_and_keystone_itself() {
    let desk = Desk::new().without_pythons();
    let url = websso(desk.keystone.url(), "websso/openid");
    let skyline = Dashboard::that_says(move |asked| match &*asked.path {
        "/" => page("<html><div id=\"app\"></div></html>"),
        "/api/openstack/skyline/api/v1/sso" => page(format!(
            "{{\"enable_sso\": true, \"protocols\": [{{\"protocol\": \"openid\", \"url\": \"{url}\"}}]}}"
        )),
        _ => missing(),
    });
    quietly(&desk, &skyline.url(), &[]).ok();
    assert_eq!(entry(&desk)["auth"]["protocol"], "openid");

    let desk = Desk::new().without_pythons();
    let auth_url = format!("{}/v3", desk.keystone.url());
    let vendor = Dashboard::that_says(move |asked| match &*asked.path {
        "/.well-known/openstack/api" => page(format!(
            "{{\"name\": \"acme\", \"profile\": {{\"auth\": {{\"auth_url\": \"{auth_url}\"}}, \"region_name\": \"one\"}}}}"
        )),
        _ => missing(),
    });
    let outcome = quietly(&desk, &vendor.url(), &[]);
    assert_refused(&desk, &outcome, "--protocol");
    quietly(&desk, &vendor.url(), &["--protocol", "openid"]).ok();
    assert_eq!(entry(&desk)["region_name"], "one");

    let desk = Desk::new().without_pythons();
    let url = desk.keystone.url().to_owned();
    quietly(
        &desk,
        &url,
        &["--protocol", "openid", "--identity-provider", "lab-idp", "--project-name", "demo"],
    )
    .ok();
    assert_eq!(entry(&desk)["auth"]["project_name"], "demo");
}

#[test]
fn from_an_openrc_and_anothers_clouds_yaml_without_their_secrets() {
    let desk = Desk::new().without_pythons();
    let url = desk.keystone.url();
    let openrc = desk.sandbox.path("home/demo-openrc.sh");
    // As Horizon writes it (`openrc.sh.template`).
    let horizons = format!(
        "#!/usr/bin/env bash\nexport OS_AUTH_URL={url}/v3\nexport OS_PROJECT_ID=0123456789abcdef0123456789abcdef\n\
         export OS_PROJECT_NAME=\"demo\"\nexport OS_USER_DOMAIN_NAME=\"Federated\"\nif [ -z \"$OS_USER_DOMAIN_NAME\" ]; \
         then unset OS_USER_DOMAIN_NAME; fi\nexport OS_USERNAME=\"alice\"\necho \"Please enter your OpenStack Password: \"\n\
         read -sr OS_PASSWORD_INPUT\nexport OS_PASSWORD=$OS_PASSWORD_INPUT\nexport OS_REGION_NAME=\"RegionOne\"\n\
         touch {}\n",
        desk.sandbox.path("run-by-mistake").display()
    );
    fs::write(&openrc, &horizons).unwrap();
    let from = openrc.display().to_string();
    let said = quietly(&desk, &from, &["--protocol", "openid", "--identity-provider", "lab-idp"]).ok().stdout;
    assert!(said.contains("passwords and secrets of") && said.contains("not taken over"), "{said}");
    assert!(!desk.sandbox.path("run-by-mistake").exists());
    let made = entry(&desk);
    assert_eq!(made["auth"]["project_id"], "0123456789abcdef0123456789abcdef");
    assert_eq!(made["region_name"], "RegionOne");
    assert!(made["auth"].get("username").is_none(), "{made}");

    // A federated one, as operators write them.
    let desk = Desk::new().without_pythons();
    let federated = format!(
        "export OS_AUTH_TYPE=v3oidcpassword\nexport OS_AUTH_URL={}/v3\nexport OS_IDENTITY_PROVIDER=lab-idp\n\
         export OS_PROTOCOL='openid'\nexport OS_CLIENT_ID=openstack\nexport OS_CLIENT_SECRET=canary-secret\n\
         export OS_DISCOVERY_ENDPOINT=https://idp.example/.well-known/openid-configuration\nexport OS_PASSWORD='canary-word'\n\
         export OS_PROJECT_NAME=demo\nexport OS_PROJECT_DOMAIN_NAME=lab\n",
        desk.keystone.url()
    );
    let openrc = desk.sandbox.path("home/openrc");
    fs::write(&openrc, federated).unwrap();
    let outcome = quietly(&desk, "openrc", &[]).ok();
    assert!(!format!("{outcome:?}{}", text(&desk)).contains("canary"), "{outcome:?}");
    let made = entry(&desk);
    assert_eq!(
        (&made["auth"]["protocol"], &made["auth"]["project_domain_name"]),
        (&"openid".into(), &"lab".into())
    );
    assert!(made["auth"].get("client_id").is_none(), "an OAuth client with a secret is not ours: {made}");

    let desk = Desk::new().without_pythons();
    let theirs = desk.sandbox.path("home/theirs.yaml");
    let two = format!(
        "clouds:\n  one:\n    auth: {{auth_url: \"{0}/v3\", identity_provider: lab-idp, protocol: openid, password: canary}}\n  \
         two:\n    auth: {{auth_url: \"{0}/v3\"}}\n",
        desk.keystone.url()
    );
    fs::write(&theirs, two).unwrap();
    assert_refused(&desk, &quietly(&desk, "theirs.yaml", &[]), "--entry NAME");
    quietly(&desk, "theirs.yaml", &["--entry", "one"]).ok();
    assert_eq!(entry(&desk)["auth"]["identity_provider"], "lab-idp");
    assert!(!text(&desk).contains("canary"));
}

#[test]
fn an_entry_that_is_there_is_not_written_over() {
    let desk = Desk::new().without_pythons();
    let before = text(&desk);
    let url = desk.keystone.url();
    let outcome =
        desk.run(&["setup", url, "--name", "demo", "--protocol", "openid", "--no-sign-in", "--yes"]);
    assert_refused(&desk, &outcome, "it is not written over. Try: --name with another");
    assert_eq!(text(&desk), before);
}

#[test]
fn nothing_is_trusted_without_a_persons_word() {
    let desk = Desk::new().without_pythons();
    let horizon = Dashboard::horizon(&[("lab", "The Lab", websso(desk.keystone.url(), OF_LAB))]);
    let outcome = desk.run(&["setup", &horizon.url(), "--name", "new"]);
    assert!(
        outcome.stdout.contains(&format!("Keystone           {}/v3", desk.keystone.url())),
        "{outcome:?}"
    );
    assert_refused(&desk, &outcome, "not answered: Trust this Keystone, and sign in there");
    assert_eq!(desk.keystone.requests(), 0, "not even a question went there");
}

#[test]
fn no_page_leads_to_this_computer() {
    let mut desk = Desk::new().without_pythons();
    // Asked as a proxy: then it answers for a host that is elsewhere.
    let elsewhere =
        Dashboard::that_says(|_| redirect("http://0.0.0.0:5000/v3/auth/OS-FEDERATION/websso/openid"));
    desk.sandbox.set("http_proxy", elsewhere.url());
    let refused = quietly(&desk, "http://horizon.example", &["--plain-http"]);
    assert_refused(
        &desk,
        &refused,
        "http://horizon.example/ redirects to this computer, http://0.0.0.0:5000/",
    );
    assert_eq!(elsewhere.asked(), ["GET http://horizon.example/"]);
}

/// What is tried, what the page says to a path, and why it is refused.
type Case = (&'static str, Box<dyn Fn(&str) -> Says + Send>, &'static str);

#[test]
fn hostile_pages_lead_nowhere() {
    let desk = Desk::new().without_pythons();
    let elsewhere = "https://keystone.evil.invalid";
    let cases: Vec<Case> = vec![
        (
            "a redirect without TLS",
            Box::new(|_| redirect("http://keystone.example/auth/login/")),
            "begins with http",
        ),
        ("a loop", Box::new(|path| redirect(format!("{path}x"))), "redirects again and again"),
        ("another scheme", Box::new(|_| redirect("file:///etc/passwd")), "is no address of a web page"),
        ("a giant", Box::new(|_| page("<a>".repeat(1 << 20))), "larger than any login page"),
        ("no dashboard", Box::new(|_| page("<h1>Hello</h1>")), "neither a Horizon nor a Skyline"),
        (
            "a form that sends elsewhere",
            Box::new(move |_| {
                page(format!(
                    "<form method=post action={elsewhere}/auth/login/><select name=auth_type><option value=x>x</select></form>"
                ))
            }),
            "neither a Horizon nor a Skyline",
        ),
        (
            "names that steer a terminal or a file",
            Box::new(|_| {
                redirect(
                    "https://ks.example/v3/auth/OS-FEDERATION/identity_providers/a%0a%1b%5b2J/protocols/o/websso",
                )
            }),
            "",
        ),
    ];
    for (case, says, why) in cases {
        let dashboard = Dashboard::that_says(move |asked| says(&asked.path));
        let outcome = quietly(&desk, &dashboard.url(), &[]);
        assert!(!outcome.stdout.contains('\x1b') && !outcome.stderr.contains('\x1b'), "{case}: {outcome:?}");
        assert!(dashboard.asked().len() < 20, "{case}: {:?}", dashboard.asked());
        assert_refused(&desk, &outcome, why);
    }
    // Words of a page are shown without what steers a terminal.
    let url = websso(desk.keystone.url(), OF_LAB);
    let other = websso(desk.keystone.url(), "identity_providers/b/protocols/openid/websso");
    let horizon = Dashboard::horizon(&[("a", "\x1b[2Jgood\u{202e}", url), ("b", "other", other)]);
    let outcome = quietly(&desk, &horizon.url(), &[]);
    assert!(outcome.stdout.contains("1  [2Jgood: "), "{outcome:?}");
    assert!(!outcome.stdout.contains(['\x1b', '\u{202e}']), "{outcome:?}");
}

#[test]
fn a_page_that_names_another_hosts_keystone_is_shown_for_what_it_is() {
    let desk = Desk::new().without_pythons();
    let keystone = desk.keystone.url().replace("127.0.0.1", "localhost");
    let horizon = Dashboard::horizon(&[("lab", "The Lab", websso(&keystone, OF_LAB))]);
    let outcome = desk.run(&["setup", &horizon.url(), "--name", "new"]);
    assert!(outcome.stdout.contains(&format!("another host       {keystone}/v3/")), "{outcome:?}");
    assert!(
        outcome.stdout.contains("you gave 127.0.0.1, and it names a Keystone on another host"),
        "{outcome:?}"
    );
    assert_refused(&desk, &outcome, "Trust this Keystone");
}

#[test]
fn an_address_with_a_password_in_it_is_not_taken() {
    let desk = Desk::new().without_pythons();
    let refused = quietly(&desk, "https://alice:hunter2@horizon.example", &[]);
    assert_refused(&desk, &refused, "the address holds a name or a password");
    assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
}
