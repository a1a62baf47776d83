//! `ksb clouds add` writes entries that every tool can use, and `remove` leaves both files as they were.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::{Value, json};

use crate::support::desk::Desk;
use crate::support::http::{Request, Response};
use crate::support::sandbox::Outcome;
use crate::support::spawn;

/// A user with an entry `demo`, and both files within reach.
pub struct Person {
    pub desk: Desk,
    pub clouds: PathBuf,
    secure: PathBuf,
}

impl Person {
    pub fn new() -> Self {
        let desk = Desk::new();
        let folder = desk.sandbox.path("home/.config/openstack");
        Self { desk, clouds: folder.join("clouds.yaml"), secure: folder.join("secure.yaml") }
    }

    pub fn ksb(&self, args: &[&str]) -> Outcome {
        self.desk.run(args)
    }

    /// The entry `demo` as lines of a file with this indent.
    fn demo(&self, indent: usize) -> String {
        let entry = self.desk.entry("demo", "project_name: demo\n      project_domain_name: lab");
        let deeper = |line: &str| {
            let level = (line.len() - line.trim_start().len()) / 2;
            format!("{}{}\n", " ".repeat(level * indent), line.trim_start())
        };
        entry.lines().map(deeper).collect()
    }

    /// What the two files say and how they may be used; nothing of one that is not there.
    fn files(&self) -> [Option<(Vec<u8>, u32)>; 2] {
        [&self.clouds, &self.secure].map(|file| Some((fs::read(file).ok()?, mode(file))))
    }

    fn leases(&self) -> Vec<Value> {
        self.desk.api_of_a_new_agent().get("/v1/leases").json["leases"].as_array().unwrap().clone()
    }

    /// The command fails and leaves nothing behind; gives back what it said.
    #[track_caller]
    fn refused(&self, args: &[&str]) -> String {
        let (files, leases) = (self.files(), self.leases());
        let outcome = self.ksb(args);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(". Try: "), "no remedy: {}", outcome.stderr);
        assert_eq!(self.files(), files);
        assert_eq!(self.leases(), leases);
        outcome.stderr
    }

    /// The id, the secret and the address of an entry, as a tool reads them.
    #[track_caller]
    fn credential(&self, name: &str) -> [String; 3] {
        let (clouds, secure) = (parts(&self.clouds, name), parts(&self.secure, name));
        let value = |lines: &[String], key: &str| {
            let line = lines.iter().find(|line| line.starts_with(&format!("{key}:")));
            let line = line.unwrap_or_else(|| panic!("no {key} in {lines:?}"));
            line.split_once(": ").unwrap().1.trim_matches('"').to_owned()
        };
        [
            value(&clouds, "application_credential_id"),
            value(&secure, "application_credential_secret"),
            value(&clouds, "auth_url"),
        ]
    }
}

/// The lines of an entry without their indent and mark.
fn parts(file: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().skip_while(|line| !line.trim_start().starts_with(&format!("{name}:")));
    lines.map_while(|line| Some(line.strip_suffix("# ksb clouds add")?.trim().to_owned())).collect()
}

pub fn write(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn chmod(file: &Path, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().mode() & 0o7777
}

/// What a tool does with an entry.
fn authenticate([id, secret, auth_url]: &[String; 3]) -> Response {
    let identity = json!({
        "methods": ["application_credential"], "application_credential": {"id": id, "secret": secret},
    });
    let body = json!({"auth": {"identity": identity}}).to_string();
    Request::new("POST", &format!("{auth_url}/auth/tokens")).body("application/json", body).send()
}

#[test]
fn a_tool_without_the_plugin_gets_tokens_until_the_entry_is_removed() {
    let person = Person::new();
    person.desk.run_and_sign_in(&["login"], "alice").ok();
    let before = person.files();
    let said = person.ksb(&["clouds", "add"]).ok().stdout;
    assert!(
        said.starts_with("demo-ksb: written to ") && said.contains("Undo: ksb clouds remove demo-ksb\n"),
        "{said}"
    );
    assert_eq!(mode(&person.secure), 0o600);

    let credential = person.credential("demo-ksb");
    assert!(
        !fs::read_to_string(&person.clouds).unwrap().contains(&credential[1]),
        "the secret is in clouds.yaml"
    );
    assert!(!said.contains(&credential[1]));
    assert!(said.contains("Note: nothing is kept here: the lease ends with the agent"), "{said}");
    let answer = authenticate(&credential);
    assert_eq!(
        (answer.status, &answer.json()["token"]["project"]["name"]),
        (201, &json!("demo")),
        "{answer:?}"
    );
    let token = answer.header("x-subject-token").unwrap().to_owned();
    assert!(person.desk.keystone.accepts(&token));
    assert_eq!(person.leases()[0]["name"], "demo-ksb");
    assert_eq!(person.leases()[0]["expires_at"], Value::Null);

    let said = person.ksb(&["clouds", "remove", "demo-ksb"]).ok().stdout;
    assert!(said.contains("which had nothing else in it and is removed"), "{said}");
    assert!(said.contains("its lease has ended; 1 token(s) revoked"), "{said}");
    assert_eq!(person.files(), before);
    assert_eq!(person.leases(), Vec::<Value>::new());
    assert!(!person.desk.keystone.accepts(&token));
    assert_eq!(authenticate(&credential).status, 401);
}

#[test]
fn each_project_has_an_entry_and_a_lease() {
    let person = Person::new();
    person.desk.run_and_sign_in(&["login"], "alice").ok();
    let before = person.files();
    let said = person.ksb(&["clouds", "add", "demo", "--name", "lab", "--each-project"]).ok().stdout;
    let projects = ["demo", "staging", "production"];
    for project in projects {
        let answer = authenticate(&person.credential(&format!("lab-{project}")));
        assert_eq!(answer.json()["token"]["project"]["name"], project, "{said}");
    }
    assert_eq!(person.leases().len(), 3);
    let again = person.ksb(&["clouds", "add", "demo", "--name", "lab", "--each-project"]).ok().stdout;
    assert!(again.contains("lab-staging: is there already") && !again.contains("written"), "{again}");

    person.ksb(&["clouds", "remove", "lab-staging"]).ok();
    let again = person.ksb(&["clouds", "add", "demo", "--name", "lab", "--each-project"]).ok().stdout;
    assert!(again.contains("lab-staging: written"), "{again}");
    person.ksb(&["clouds", "remove", "lab-production", "lab-demo", "lab-staging"]).ok();
    assert_eq!(person.files(), before);
    assert_eq!(person.leases(), Vec::<Value>::new());
}

#[test]
fn what_fails_half_way_leaves_no_lease_and_no_entry() {
    let person = Person::new();
    person.desk.run_and_sign_in(&["login"], "alice").ok();
    // The name of one of the three leases is taken.
    person.ksb(&["lease", "create", "demo", "--name", "demo-ksb-staging"]).ok();
    let said = person.refused(&["clouds", "add", "--each-project"]);
    assert!(said.contains("there is a lease demo-ksb-staging already"), "{said}");
}

#[test]
fn links_and_modes_stay() {
    let person = Person::new();
    let text = fs::read_to_string(&person.clouds).unwrap();
    let (clouds, secure) =
        (person.desk.sandbox.path("home/dotfiles/c.yaml"), person.desk.sandbox.path("home/other/s.yaml"));
    write(&clouds, &text);
    write(&secure, "clouds:\n");
    chmod(&clouds, 0o644);
    chmod(&secure, 0o400 | 0o200 | 0o040);
    fs::remove_file(&person.clouds).unwrap();
    symlink("../../dotfiles/c.yaml", &person.clouds).unwrap();
    symlink(&secure, &person.secure).unwrap();
    let before = person.files();
    let said = person.ksb(&["clouds", "add"]).ok();
    assert!(said.stderr.contains("can be read by others. Try: chmod 600 "), "{}", said.stderr);
    for file in [&person.clouds, &person.secure] {
        assert!(file.symlink_metadata().unwrap().is_symlink());
    }
    assert_eq!((mode(&clouds), mode(&secure)), (0o644, 0o640));
    assert!(fs::read_to_string(&clouds).unwrap().contains("demo-ksb:"));
    assert!(fs::read_to_string(&secure).unwrap().contains("application_credential_secret: "));
    person.ksb(&["clouds", "remove", "demo-ksb"]).ok();
    assert_eq!(person.files(), before);
    for file in [&person.clouds, &person.secure] {
        assert!(file.symlink_metadata().unwrap().is_symlink());
    }
}

#[test]
fn the_entry_keeps_what_is_not_about_signing_in() {
    let person = Person::new();
    let more = "  demo:\n    region_name: Region One\n    interface: internal\n    cacert: ~/lab.pem\n    verify: true\n    \
                image_api_version: '2'\n    networks: [{name: net, default_interface: true}]\n    \
                metrics: {influxdb: {host: h, password: hunter2}}\n    api_timeout: 30\n    password: hunter2\n    \
                profile: nowhere\n";
    let text = format!("clouds:\n{}", person.demo(2)).replace("  demo:\n", more);
    fs::write(&person.clouds, text).unwrap();
    let authority = rcgen::generate_simple_self_signed(["keystone.example.org".to_owned()]).unwrap();
    fs::write(person.desk.sandbox.path("home/lab.pem"), authority.cert.pem()).unwrap();
    person.ksb(&["clouds", "add", "demo", "--name", "my cloud"]).ok();
    let entry = parts(&person.clouds, "\"my cloud\"");
    let cacert = format!("cacert: {}", person.desk.sandbox.path("home/lab.pem").display());
    for line in [
        "auth_type: v3applicationcredential",
        "region_name: \"Region One\"",
        "interface: internal",
        "image_api_version: 2",
        "networks: [{name: net, default_interface: true}]",
        "host: h",
        "api_timeout: 30",
        "identity_api_version: 3",
        "verify: true",
        &cacert,
    ] {
        assert!(entry.iter().any(|there| there == line), "{line} is missing in {entry:#?}");
    }
    let secure = fs::read_to_string(&person.secure).unwrap();
    for word in ["hunter2", "profile", "project", "redirect_port", "v3broker", "••••"] {
        assert!(!entry.join("\n").contains(word) && !secure.contains(word), "{word}: {entry:#?}");
    }
}

#[test]
fn variables_alone_make_an_entry_in_a_new_file() {
    for text in [None, Some(""), Some("# nothing\r\n"), Some("cache:\n  class: x"), Some("clouds:")] {
        let mut person = Person::new();
        for (name, value) in [
            ("OS_AUTH_TYPE", "v3broker"),
            ("OS_AUTH_URL", &format!("{}/v3", person.desk.keystone.url())),
            ("OS_PROTOCOL", "openid"),
            ("OS_PROJECT_NAME", "demo"),
        ] {
            person.desk.sandbox.set(name, value);
        }
        match text {
            None => fs::remove_file(&person.clouds).unwrap(),
            Some(text) => fs::write(&person.clouds, text).unwrap(),
        }
        let before = person.files();
        person.ksb(&["clouds", "add", "envvars", "--name", "mine"]).ok();
        assert_eq!(mode(&person.secure), 0o600);
        if text.is_none() {
            assert_eq!(mode(&person.clouds), 0o600);
        }
        person.credential("mine");
        person.ksb(&["clouds", "remove", "mine"]).ok();
        assert_eq!(person.files(), before, "{text:?}");
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_there_is_a_lease() {
    let person = Person::new();
    let demo = person.demo(2);
    for (text, why) in [
        (format!("clouds:\n{demo}  demo-ksb: {{}}\n"), "demo-ksb: there is an entry of this name"),
        (format!("{{\"clouds\": {}}}", flow(&demo)), "no line can be put in safely"),
        (format!("clouds: {}\n", flow(&demo)), "no line can be put in safely"),
    ] {
        fs::write(&person.clouds, &text).unwrap();
        let said = person.refused(&["clouds", "add", "demo"]);
        assert!(said.contains(why), "{said}");
    }
    fs::write(&person.clouds, format!("clouds:\n{demo}")).unwrap();
    for (text, why) in [
        ("clouds: {plain: {auth: {password: x}}}\n", "no line can be put in safely"),
        ("clouds:\n  demo-ksb:\n    verify: false\n", "there is an entry of this name"),
        ("clouds: [", "cannot be used as it stands"),
    ] {
        write(&person.secure, text);
        let said = person.refused(&["clouds", "add", "demo"]);
        assert!(said.contains(why), "{said}");
    }
    fs::remove_file(&person.secure).unwrap();
    assert!(person.refused(&["clouds", "add", "other"]).contains("no cloud of this name"));
    assert!(person.refused(&["clouds", "add", "demo", "--name", "envvars"]).contains("OS_* variables"));

    person.ksb(&["clouds", "add"]).ok();
    // Said again, it renews the entry: after a reboot its lease may be over.
    let before = fs::read_to_string(&person.clouds).unwrap();
    let said = person.ksb(&["clouds", "add", "demo"]).ok().stdout;
    assert!(said.contains("demo-ksb: written to ") && said.contains("ksb service install"), "{said}");
    let after = fs::read_to_string(&person.clouds).unwrap();
    assert!(before != after && before.lines().count() == after.lines().count(), "{after}");
    person.ksb(&["clouds", "add", "demo", "--name", "second"]).ok();
}

/// The entry `demo` within braces.
fn flow(demo: &str) -> String {
    let url = demo.lines().find_map(|line| line.trim().strip_prefix("auth_url: ")).unwrap();
    format!(
        "{{\"demo\": {{\"auth_type\": \"v3broker\", \"auth\": {{\"auth_url\": \"{url}\", \"protocol\": \"openid\"}}}}}}"
    )
}

#[test]
fn a_repositorys_file_is_left_alone_unless_it_is_named() {
    let mut person = Person::new();
    let here = person.desk.sandbox.path("home/clouds.yaml");
    write(&here, &format!("clouds:\n{}", person.demo(2)));
    let before = fs::read(&here).unwrap();
    let said = person.refused(&["clouds", "add", "demo"]);
    assert!(
        said.contains("lies in the current directory") && said.contains("OS_CLIENT_CONFIG_FILE="),
        "{said}"
    );
    assert_eq!(fs::read(&here).unwrap(), before);

    person.desk.sandbox.set("OS_CLIENT_CONFIG_FILE", &here);
    person.ksb(&["clouds", "add", "demo"]).ok();
    assert!(fs::read_to_string(&here).unwrap().contains("demo-ksb:"));
    person.ksb(&["clouds", "remove", "demo-ksb"]).ok();
    assert_eq!(fs::read(&here).unwrap(), before);
    assert!(!person.secure.exists());
}

#[test]
fn only_what_was_written_is_removed() {
    let person = Person::new();
    assert!(person.refused(&["clouds", "remove", "demo"]).contains("did not write it"));
    assert!(person.refused(&["clouds", "remove", "nobody"]).contains("no cloud of this name"));
    let before = fs::read_to_string(&person.clouds).unwrap();

    // The user goes on editing, and the agent forgets.
    person.ksb(&["clouds", "add"]).ok();
    let edited = |text: String| text.replace("  demo:\n", "  # mine\n  other: {}\n  demo:\n") + "# end\n";
    let now = fs::read_to_string(&person.clouds).unwrap();
    fs::write(&person.clouds, edited(now)).unwrap();
    person.ksb(&["lease", "revoke", "demo-ksb"]).ok();
    let said = person.ksb(&["clouds", "remove", "demo-ksb"]).ok().stdout;
    assert!(said.contains("its lease had ended before"), "{said}");
    assert_eq!(fs::read_to_string(&person.clouds).unwrap(), edited(before));
    assert!(!person.secure.exists());

    // An entry like ours, by somebody's hand.
    person.ksb(&["clouds", "add", "demo"]).ok();
    let by_hand = fs::read_to_string(&person.clouds).unwrap().replace("  # ksb clouds add", "");
    fs::write(&person.clouds, by_hand).unwrap();
    assert!(person.refused(&["clouds", "remove", "demo-ksb"]).contains("another program has rewritten it"));
    let secret = fs::read(&person.secure).unwrap();
    fs::remove_file(&person.secure).unwrap();
    assert!(person.refused(&["clouds", "remove", "demo-ksb"]).contains("another program has rewritten it"));
    assert_eq!(person.leases().len(), 1);

    // What is left when `add` is killed between the two files.
    fs::write(&person.clouds, format!("clouds:\n{}", person.demo(2))).unwrap();
    fs::write(&person.secure, secret).unwrap();
    let said = person.ksb(&["clouds", "remove", "demo-ksb"]).ok().stdout;
    assert!(said.contains("one may be left: ksb lease list"), "{said}");
    assert!(!person.secure.exists());
}

#[test]
fn of_many_at_once_none_is_lost() {
    let person = Person::new();
    let before = person.files();
    person.desk.api_of_a_new_agent();
    let names: Vec<_> = (0..8).map(|n| format!("n{n}")).collect();
    let all_at_once = |args: &dyn Fn(&str) -> Vec<String>| {
        let spawn = |name: &String| {
            let args = args(name);
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            spawn::raw(person.desk.sandbox.ksb(&args).stdout(Stdio::null()))
        };
        let children: Vec<_> = names.iter().map(spawn).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
    };
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    all_at_once(&|name| words(&["clouds", "add", "demo", "--name", name]));
    for name in &names {
        person.credential(name);
    }
    assert_eq!(person.leases().len(), names.len());
    all_at_once(&|name| words(&["clouds", "remove", name]));
    assert_eq!(person.files(), before);
}

/// Files as people write them: what stands around the entry `demo`, and a secure.yaml or none.
fn files(demo: impl Fn(usize) -> String) -> impl Strategy<Value = (String, Option<String>)> {
    let some = |lines: &'static [&'static str]| prop::collection::vec(prop::sample::select(lines), 0..3);
    let around = some(&["# note", "", "cache:\n  class: dogpile", "metrics:\n  - a", "x: &x {a: 1}\ny: *x"]);
    let heads =
        prop::sample::select(vec!["clouds:", "clouds:   # all of them", "clouds: &all", "\"clouds\":"]);
    let others = some(&[
        "~work: &o\n~~auth: {auth_url: 'https://k/v3'}",
        "~third: {verify: false}",
        "~# old",
        "",
        "~'a b':\n~~auth:\n~~~auth_url: x  # why\n~~~password: '#'",
        "~text:\n~~message: |\n~~~one\n\n~~~two",
    ]);
    let secure = prop::option::of(prop::sample::select(vec![
        "",
        "# mine\n",
        "clouds:",
        "clouds:\n  work:\n    auth:\n      password: hunter2  # since May\n\n# end",
        "clouds:\n    demo:\n        auth: {username: alice}\n",
        "clouds: {work: {auth: {password: x}}}\n",
        "clouds:  # ksb clouds adopt\n  work:  # ksb clouds adopt\n    auth_type: v3broker  # ksb clouds adopt\n",
    ]));
    let ends = (any::<bool>(), any::<bool>(), any::<bool>());
    (around.clone(), heads, others.clone(), others, around, 1_usize..5, secure, ends).prop_map(
        move |(top, head, before, after, bottom, indent, secure, (crlf, newline, bom))| {
            let own = demo(indent);
            let indented = |line: &&str| line.replace('~', &" ".repeat(indent));
            let mut lines: Vec<String> = top.iter().map(|&line| line.to_owned()).collect();
            lines.push(head.to_owned());
            lines.extend(before.iter().map(indented));
            lines.push(own.trim_end().to_owned());
            lines.extend(after.iter().map(indented));
            lines.extend(bottom.iter().map(|&line| line.to_owned()));
            let mut text = lines.join("\n");
            if newline {
                text.push('\n');
            }
            if crlf {
                text = text.replace('\n', "\r\n");
            }
            (if bom { format!("\u{feff}{text}") } else { text }, secure.map(str::to_owned))
        },
    )
}

#[test]
fn add_and_remove_leave_any_two_files_as_they_were() {
    let person = Person::new();
    let demo = |indent| person.demo(indent);
    let api = person.desk.api_of_a_new_agent();
    let added = std::cell::Cell::new(0);
    let cases = Cases { cases: 40, failure_persistence: None, ..Cases::default() };
    let outcome = TestRunner::new(cases).run(&files(demo), |(clouds, secure)| {
        fs::write(&person.clouds, clouds).unwrap();
        match secure {
            Some(text) => fs::write(&person.secure, text).unwrap(),
            None => drop(fs::remove_file(&person.secure)),
        }
        let before = person.files();
        let outcome = person.ksb(&["clouds", "add", "demo"]);
        if outcome.code == Some(0) {
            added.set(added.get() + 1);
            person.credential("demo-ksb");
            let removed = person.ksb(&["clouds", "remove", "demo-ksb"]);
            prop_assert_eq!(removed.code, Some(0), "{}", removed.stderr);
        }
        prop_assert_eq!(person.files(), before, "{}", outcome.stderr);
        prop_assert_eq!(&api.get("/v1/leases").json["leases"], &json!([]));
        Ok(())
    });
    outcome.unwrap_or_else(|why| panic!("{why}"));
    assert!(added.get() > 10, "nearly everything is refused");
}
