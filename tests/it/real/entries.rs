//! One sign-in, however clouds.yaml or the command line describe the cloud.

use super::front::{Counts, Front, Log, stack};

#[test]
fn every_way_to_write_the_same_cloud_shares_one_sign_in() {
    let front = Front::free();
    let port = front.callback_port();
    let (root, ca) = (front.auth_url().replace("/v3", ""), stack("CA"));
    // As people have it for keystoneauth's own plugin, some options beside `auth`.
    let websso = format!(
        "  legacy:\n    auth_type: v3websso\n    identity_provider: lab-idp\n    protocol: openid\n    auth:\n      \
         auth_url: {root}/v3\n      redirect_host: localhost\n      redirect_port: {port}\n      project_name: demo\n      \
         project_domain_name: lab\n    cacert: {ca}\n"
    );
    let demo = "project_name: demo, project_domain_name: lab";
    let by_name = "  by-name:\n    auth_type: v3broker\n    auth: {cloud: demo}\n".to_owned();
    let mut entries = vec![front.entry("demo", "demo"), websso, by_name];
    let shapes = [("root", ""), ("slash", "/"), ("v3-slash", "/v3/")];
    entries.extend(shapes.map(|(name, end)| front.entry_at(&format!("{root}{end}"), name, demo)));
    front.clouds(&entries);

    let token = front.token(&["legacy"]);
    for entry in ["demo", "by-name", "root", "slash", "v3-slash"] {
        assert_eq!(front.token(&[entry]), token, "{entry}");
    }
    let issue = ["token", "issue", "-f", "value", "-c", "id"];
    for entry in ["demo", "by-name", "slash"] {
        assert_eq!(front.answer(&[&["--os-cloud", entry], &issue[..]].concat()), token, "{entry}");
    }
    let (auth_url, port) = (front.auth_url(), port.to_string());
    let inline = [
        "--os-auth-type",
        "v3broker",
        "--os-auth-url",
        &auth_url,
        "--os-identity-provider",
        "lab-idp",
        "--os-protocol",
        "openid",
        "--os-project-name",
        "demo",
        "--os-project-domain-name",
        "lab",
        "--os-redirect-port",
        &port,
        "--os-cacert",
        &ca,
    ];
    let mut command = front.openstack(&[&inline[..], &issue[..]].concat());
    command.env_remove("OS_CLOUD");
    assert_eq!(super::program::run(command).ok().stdout.trim(), token);
    assert_eq!(front.counts(), Counts { browsers: 1, logins: 1, exchanges: 1 }, "{:?}", front.all_requests());

    // A Keystone below a path is another one, again in each shape.
    front.browsers.ended();
    let below = Log::take(stack("PREFIX_FRONT").parse().unwrap());
    let root = below.url.replace("/v3", "");
    let shapes = [("path", ""), ("path-slash", "/"), ("path-v3", "/v3"), ("path-v3-slash", "/v3/")];
    front.clouds(&shapes.map(|(name, end)| front.entry_at(&format!("{root}{end}"), name, demo)));
    let token = front.token(&["path"]);
    for (entry, _) in shapes {
        assert_eq!(front.token(&[entry]), token, "{entry}");
    }
    assert_eq!(front.answer(&[&["--os-cloud", "path"], &issue[..]].concat()), token);
    assert_eq!(below.counts(), Counts { browsers: 0, logins: 1, exchanges: 1 }, "{:?}", below.all());
    assert_eq!(front.counts(), Counts { browsers: 2, logins: 1, exchanges: 1 });
}

#[test]
fn a_certificate_of_an_unknown_authority_is_named_and_opens_no_browser() {
    let front = Front::free();
    let entry = front.entry("demo", "demo");
    front.clouds(&[entry.replace(&format!("    cacert: {}\n", stack("CA")), "")]);
    for said in [
        front.ksb(&["token"]),
        front.ksb(&["login"]),
        super::program::run(front.openstack(&["token", "issue"])),
    ] {
        assert_eq!(said.code, Some(1), "{said:?}");
        assert_eq!(said.stdout, "");
        assert!(said.stderr.contains("demo: TLS with keystone.localhost:500"), "{said:?}");
        assert!(said.stderr.contains("set cacert in the cloud's entry"), "{said:?}");
    }
    assert_eq!(front.counts(), Counts { browsers: 0, logins: 0, exchanges: 0 });
}
