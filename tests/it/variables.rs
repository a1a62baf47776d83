//! `OS_*` variables beside an entry of clouds.yaml: what they ask for counts, or a line says what counts instead.

use serde_json::Value;

use crate::support::desk::Desk;
use crate::support::sandbox::{Outcome, end_of};
use crate::support::spawn::start;

const DEMO: &str = "project_name: demo\n      project_domain_name: lab";

/// A command with these variables; `AUTH_URL` stands for the entry's own.
fn with(desk: &Desk, variables: &[(&str, &str)], args: &[&str]) -> Outcome {
    let mut ksb = desk.sandbox.ksb(args);
    for (name, value) in variables {
        ksb.env(name, value.replace("AUTH_URL", desk.keystone.url()));
    }
    end_of(start(&mut ksb))
}

fn project_of(desk: &Desk, token: &str) -> String {
    let body: Value = serde_json::from_str(&desk.keystone.body_of(token.trim())).unwrap();
    body["token"]["project"]["name"].as_str().unwrap_or("none").to_owned()
}

/// The id of the project `staging`.
fn staging(desk: &Desk) -> String {
    let token = desk.run(&["token", "--project", "staging"]).ok().stdout;
    let body: Value = serde_json::from_str(&desk.keystone.body_of(token.trim())).unwrap();
    body["token"]["project"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_scope_that_variables_ask_for_counts_in_every_command_and_is_told() {
    let desk = Desk::new();
    desk.write_cloud(DEMO);
    desk.run_and_sign_in(&["login"], "alice").ok();
    let id = staging(&desk);
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[("OS_PROJECT_NAME", "staging")], "OS_PROJECT_NAME"),
        (&[("OS_TENANT_NAME", "staging")], "OS_TENANT_NAME"),
        (&[("OS_PROJECT_ID", &id)], "OS_PROJECT_ID"),
        (&[("OS_TENANT_ID", &id)], "OS_TENANT_ID"),
        (
            &[("OS_PROJECT_NAME", "staging"), ("OS_PROJECT_DOMAIN_NAME", "lab")],
            "OS_PROJECT_NAME, OS_PROJECT_DOMAIN_NAME",
        ),
        (&[("OS_PROJECT_NAME", "staging"), ("OS_AUTH_URL", "AUTH_URL/v3/")], "OS_PROJECT_NAME"),
        (&[("OS_PROJECT_NAME", "staging"), ("OS_TENANT_NAME", "staging")], "OS_PROJECT_NAME"),
    ];
    for (variables, names) in rows {
        let told = format!("by {names}\n");
        let token = with(&desk, variables, &["token", "demo"]).ok();
        assert_eq!(project_of(&desk, &token.stdout), "staging", "{variables:?}");
        assert!(token.stderr.contains(&told), "{variables:?}: {}", token.stderr);
        for command in [&["exec", "demo", "--"][..], &["exec", "--ephemeral", "demo", "--"]] {
            let made = with(&desk, variables, &[command, &["true"]].concat()).ok();
            assert!(made.stderr.contains(&told), "{command:?} {variables:?}: {}", made.stderr);
        }
        for command in [&["env", "demo"][..], &["lease", "create", "demo"]] {
            let made = with(&desk, variables, command).ok();
            assert!(made.stderr.contains(&told), "{command:?} {variables:?}: {}", made.stderr);
        }
        let lease: Value = {
            let list = desk.run(&["lease", "list", "--json"]).ok().stdout;
            serde_json::from_str::<Value>(&list).unwrap()["leases"].take()
        };
        assert!(
            lease.as_array().unwrap().iter().all(|lease| {
                let scope = lease["scope"].as_str().unwrap();
                scope.contains("staging") || scope.contains(&id)
            }),
            "{variables:?}: {lease}"
        );
        desk.run(&["logout"]).code.unwrap();
        desk.run_and_sign_in(&["login"], "alice").ok();
    }
}

#[test]
fn variables_of_who_signs_in_where_are_named_and_do_not_count() {
    let desk = Desk::new();
    desk.write_cloud(DEMO);
    desk.run_and_sign_in(&["login"], "alice").ok();
    let elsewhere = ("OS_AUTH_URL", "https://other.example.org/v3");
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[elsewhere], "OS_AUTH_URL"),
        // Those of an openrc file belong together.
        (&[elsewhere, ("OS_PROJECT_NAME", "staging")], "OS_AUTH_URL, OS_PROJECT_NAME"),
        (&[elsewhere, ("OS_INTERFACE", "internal")], "OS_AUTH_URL, OS_INTERFACE"),
        (&[elsewhere, ("OS_REGION_NAME", "elsewhere")], "OS_AUTH_URL, OS_REGION_NAME"),
        (&[elsewhere, ("OS_CACERT", "/nowhere/ca.pem")], "OS_AUTH_URL, OS_CACERT"),
        (&[("OS_IDENTITY_PROVIDER", "lab-idp"), ("OS_PROTOCOL", "saml2")], "OS_PROTOCOL"),
        (&[("OS_USERNAME", "bob"), ("OS_PASSWORD", "canary")], "OS_PASSWORD, OS_USERNAME"),
        (&[("OS_TOKEN", "canary")], "OS_TOKEN"),
        (&[("OS_AUTH_TYPE", "v3token")], "OS_AUTH_TYPE"),
        (&[("OS_IDENTITY_PROVIDER", "other")], "OS_IDENTITY_PROVIDER"),
        (&[("OS_PROTOCOL", "saml2")], "OS_PROTOCOL"),
        (&[("OS_APPLICATION_CREDENTIAL_SECRET", "canary")], "OS_APPLICATION_CREDENTIAL_SECRET"),
        (&[("OS_PROJECT_DOMAIN_NAME", "elsewhere")], "OS_PROJECT_DOMAIN_NAME"),
        (&[("OS_SYSTEM_SCOPE", "none")], "OS_SYSTEM_SCOPE"),
        (&[("OS_DEFAULT_DOMAIN", "elsewhere")], "OS_DEFAULT_DOMAIN"),
        (&[("OS_DOMAIN_NAME", "lab")], "OS_DOMAIN_NAME"),
        (&[("OS_SYSTEM_SCOPE", "all"), ("OS_TRUST_ID", "0123")], "OS_TRUST_ID, OS_SYSTEM_SCOPE"),
    ];
    for (variables, names) in rows {
        let told = format!(
            "ksb: demo: not used beside an entry of clouds.yaml: {names}; what counts is project demo "
        );
        let token = with(&desk, variables, &["token", "demo"]).ok();
        assert_eq!(project_of(&desk, &token.stdout), "demo", "{variables:?}");
        let made = with(&desk, variables, &["exec", "demo", "--", "true"]).ok();
        for said in [token.stderr, made.stderr] {
            assert!(said.starts_with(&told), "{variables:?}: {said}");
            assert!(said.lines().count() == 1 && !said.contains("canary"), "{variables:?}: {said}");
        }
    }
    assert_eq!(desk.keystone.logins(), 1);
}

#[test]
fn an_option_counts_without_a_word_and_a_scope_of_another_kind_takes_the_entry_s_place() {
    let desk = Desk::new();
    desk.write_cloud(DEMO);
    desk.keystone.grant_domain("alice");
    desk.run_and_sign_in(&["login"], "alice").ok();
    let by_option =
        with(&desk, &[("OS_PROJECT_NAME", "production")], &["token", "demo", "--project", "staging"]).ok();
    assert_eq!((&*by_option.stderr, &*project_of(&desk, &by_option.stdout)), ("", "staging"));
    desk.write_cloud("login_timeout: 77");
    let domain = with(&desk, &[("OS_DOMAIN_NAME", "lab")], &["token", "demo"]).ok();
    assert!(desk.keystone.body_of(domain.stdout.trim()).contains("\"domain\""));
    assert_eq!(domain.stderr, "ksb: demo: domain lab, by OS_DOMAIN_NAME\n");
    let system = with(&desk, &[("OS_SYSTEM_SCOPE", "all")], &["token", "demo"]);
    assert!(system.stderr.starts_with("ksb: demo: system, by OS_SYSTEM_SCOPE\n"), "{system:?}");
    assert_ne!(system.code, Some(0));
    let trust = with(&desk, &[("OS_TRUST_ID", "0123456789abcdef0123456789abcdef")], &["token", "demo"]);
    assert!(trust.stderr.contains("by OS_TRUST_ID\n"), "{trust:?}");
}

/// An openrc file for the same cloud is no reason for a line, nor is a scope for a command that has none.
#[test]
fn variables_that_change_nothing_are_not_told() {
    let mut desk = Desk::new();
    desk.write_cloud(DEMO);
    let same = [
        ("OS_AUTH_URL", "AUTH_URL"),
        ("OS_AUTH_TYPE", "v3broker"),
        ("OS_IDENTITY_PROVIDER", "lab-idp"),
        ("OS_PROTOCOL", "openid"),
    ];
    desk.run_and_sign_in(&["login"], "alice").ok();
    desk.sandbox.set("KSB_PROMPT", "never");
    assert_eq!(with(&desk, &same, &["token", "demo"]).ok().stderr, "");
    let scope = [("OS_PROJECT_NAME", "staging"), ("OS_PROJECT_DOMAIN_NAME", "lab")];
    for command in ["login", "projects", "trust", "refresh", "logout"] {
        let said = with(&desk, &scope, &[command, "demo"]).stderr;
        assert!(!said.contains("OS_PROJECT"), "{command}: {said}");
    }
}

/// An entry that refers to another one has that one's sign-in, and names another project of the same domain.
#[test]
fn a_project_named_beside_a_referring_entry_is_looked_for_in_the_domain_of_the_other_entry() {
    let desk = Desk::new();
    let alias = |name: &str, more: &str| {
        format!("  {name}:\n    auth_type: v3broker\n    auth:\n      cloud: demo\n{more}")
    };
    let clouds = [
        desk.entry("demo", DEMO),
        alias("plain", ""),
        alias("other", "      project_name: staging\n"),
        alias("moved", "      project_name: staging\n      project_domain_name: nowhere\n"),
    ];
    desk.sandbox.clouds(&format!("clouds:\n{}", clouds.concat()));
    desk.run_and_sign_in(&["login", "demo"], "alice").ok();
    let asked = [("OS_PROJECT_NAME", "production")];
    for (variables, entry, project) in [
        (&[][..], "plain", "demo"),
        (&[], "other", "staging"),
        (&asked, "plain", "production"),
        (&asked, "other", "production"),
    ] {
        let token = with(&desk, variables, &["token", entry]).ok();
        assert_eq!(project_of(&desk, &token.stdout), project, "{entry} {variables:?}");
    }
    assert_ne!(desk.run(&["token", "moved"]).code, Some(0));
    assert_eq!(desk.keystone.logins(), 1);
}

#[test]
fn an_interface_that_variables_ask_for_reaches_the_command() {
    let desk = Desk::new();
    desk.write_cloud(DEMO);
    let shown = |variables: &[(&str, &str)]| {
        let script = "echo $OS_INTERFACE $OS_ENDPOINT_TYPE; cat $OS_CLIENT_CONFIG_FILE";
        with(&desk, variables, &["exec", "demo", "--", "sh", "-c", script]).ok().stdout
    };
    for (name, value, expected) in [
        ("OS_INTERFACE", "internal", "internal"),
        ("OS_INTERFACE", "adminURL", "admin"),
        ("OS_ENDPOINT_TYPE", "internalURL", "internal"),
        ("OS_REGION_NAME", "north", "public"),
    ] {
        let said = shown(&[(name, value)]);
        assert!(said.starts_with(&format!("{expected} {expected}\n")), "{name}: {said}");
        assert!(said.contains(value), "{name}: {said}");
    }
}

/// A CA counts for TLS alone, and an error about it names what the user wrote.
#[test]
fn a_ca_that_cannot_be_read_is_blamed_on_what_names_it() {
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
    let mut desk = Desk::new();
    desk.write_cloud(DEMO);
    desk.run_and_sign_in(&["login"], "alice").ok();
    let file = desk.sandbox.path("home/.config/openstack/clouds.yaml").display().to_string();
    let in_file = format!("`cacert` in {file}");
    let rows: &[Row<'_>] = &[
        (&[("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")], "", "REQUESTS_CA_BUNDLE"),
        (&[("CURL_CA_BUNDLE", "/nowhere/ca.pem")], "", "CURL_CA_BUNDLE"),
        (&[("OS_CACERT", "/nowhere/ca.pem")], "", "OS_CACERT"),
        (&[], "    cacert: /nowhere/ca.pem\n", &in_file),
        (&[("REQUESTS_CA_BUNDLE", "/other/ca.pem")], "    cacert: /nowhere/ca.pem\n", &in_file),
        (&[("OS_CACERT", "/nowhere/ca.pem")], "    cacert: /other/ca.pem\n", "OS_CACERT"),
    ];
    let entry = desk.entry("demo", DEMO);
    for (variables, line, source) in rows {
        desk.sandbox.clouds(&format!("clouds:\n{entry}{line}"));
        with(&desk, variables, &["token", "demo"]).ok();
        desk.sandbox.clouds(&format!("clouds:\n{}{line}", entry.replace("http://", "https://")));
        let refused = with(&desk, variables, &["token", "demo"]);
        let told = format!(
            "ksb: demo: {source}: /nowhere/ca.pem: No such file or directory. Try: correct {source}\n"
        );
        assert_eq!((refused.code, &*refused.stderr), (Some(1), &*told), "{variables:?} {line}");
    }
    desk.sandbox.set("KSB_PROMPT", "never");
    assert_eq!(desk.keystone.logins(), 1);
}
