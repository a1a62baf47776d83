//! `ksb clouds adopt` moves entries to the plugin without a change to clouds.yaml, and back without a trace.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::sandbox::{Outcome, Sandbox};
use crate::support::spawn;

const SHARED: &str = "\
# by the operators
clouds:
  demo:
    auth_type: v3websso
    auth:
      auth_url: https://keystone.example.org/v3
      identity_provider: lab
      protocol: openid
      project_name: dev
      project_domain_name: lab
  second:
    auth_type: v3websso
    auth: {auth_url: 'https://keystone.example.org/v3', identity_provider: lab, protocol: openid}
  ready:
    auth_type: v3broker
    auth: {auth_url: 'https://keystone.example.org/v3', identity_provider: lab, protocol: openid}
  factors:
    auth_type: v3multifactor
    auth_methods: [v3password, v3totp]
    auth: {auth_url: 'https://keystone.example.org/v3', username: x, user_domain_name: lab, password: s3}
  given:
    auth_type: v3oidcaccesstoken
    auth: {auth_url: 'https://keystone.example.org/v3', identity_provider: lab, protocol: openid, access_token: h.c.s}
  robot:
    auth_type: v3applicationcredential
    auth: {auth_url: 'https://keystone.example.org/v3'}
  plain:
    auth: {auth_url: 'https://keystone.example.org/v3', username: x}
  odd:
    auth_type: v3websso
    auth: {auth_url: 'https://keystone.example.org/v3', protocol: openid, redirect_port: many}
";

/// A user with a clouds.yaml that others keep, and no program on PATH.
pub struct Person {
    pub sandbox: Sandbox,
    clouds: PathBuf,
    secure: PathBuf,
}

impl Person {
    pub fn new() -> Self {
        let mut sandbox = Sandbox::new();
        let clouds = sandbox.path("etc/clouds.yaml");
        fs::create_dir(sandbox.path("etc")).unwrap();
        fs::create_dir(sandbox.path("bin")).unwrap();
        fs::write(&clouds, SHARED).unwrap();
        chmod(&clouds, 0o444);
        let (path, secure) = (sandbox.path("bin"), sandbox.path("home/.config/openstack/secure.yaml"));
        sandbox.set("OS_CLIENT_CONFIG_FILE", &clouds).set("PATH", path);
        Self { sandbox, clouds, secure }
    }

    pub fn with_secure(text: &str) -> Self {
        let person = Self::new();
        write(&person.secure, text);
        person
    }

    pub fn ksb(&self, args: &[&str]) -> Outcome {
        let outcome = self.sandbox.run(args);
        let now = fs::read_to_string(&self.clouds).unwrap();
        assert_eq!((now.as_str(), mode(&self.clouds)), (SHARED, 0o444), "clouds.yaml is never touched");
        outcome
    }

    fn secure(&self) -> String {
        fs::read_to_string(&self.secure).unwrap()
    }

    fn auth_type(&self, cloud: &str) -> String {
        let shown = self.ksb(&["clouds", "show", cloud, "--json"]).ok();
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        shown["entry"]["auth_type"].as_str().unwrap().to_owned()
    }

    /// The command fails and leaves nothing behind; gives back what it said.
    #[track_caller]
    fn refused(&self, args: &[&str]) -> String {
        let before = fs::read(&self.secure).ok();
        let outcome = self.ksb(args);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(". Try: "), "no remedy: {}", outcome.stderr);
        assert_eq!(fs::read(&self.secure).ok(), before);
        outcome.stderr
    }

    /// A program on PATH.
    fn program(&self, name: &str, script: &str) -> PathBuf {
        let file = self.sandbox.path("bin").join(name);
        write(&file, script);
        chmod(&file, 0o755);
        file
    }

    /// A Python that answers the question it is asked.
    fn python(&self, name: &str, answer: &Value) -> PathBuf {
        let python = self.sandbox.path("bin").join(name);
        let mut whole = json!({
            "executable": python, "prefix": format!("/opt/{name}"), "version": [3, 11],
            "sdk": true, "plugin": false, "pip": true, "managed": false,
        });
        whole.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
        self.program(name, &format!("#!/bin/sh\necho '{whole}'\n"))
    }
}

fn write(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn chmod(file: &Path, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().mode() & 0o7777
}

fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn a_file_of_ours_is_private_and_goes_again() {
    let person = Person::new();
    let said = person.ksb(&["clouds", "adopt", "demo"]).ok().stdout;
    assert!(said.contains(person.secure.to_str().unwrap()), "{said}");
    assert!(said.contains("Next: ksb login demo\nUndo: ksb clouds adopt demo --undo\n"), "{said}");
    assert_eq!(mode(&person.secure), 0o600);
    assert_eq!(mode(person.secure.parent().unwrap()), 0o700);
    assert_eq!(entries(person.secure.parent().unwrap()), ["secure.yaml"]);
    assert_eq!(person.auth_type("demo"), "v3broker");
    assert_eq!(person.auth_type("second"), "v3websso");

    let said = person.ksb(&["clouds", "adopt", "demo", "--undo"]).ok().stdout;
    assert!(said.contains("the auth_type is `v3websso`"), "{said}");
    assert!(!person.secure.exists());
    assert_eq!(person.auth_type("demo"), "v3websso");
}

#[test]
fn an_existing_file_keeps_every_line_and_comes_back_byte_for_byte() {
    for text in [
        "",
        "# nothing yet\n",
        "clouds:\n",
        "clouds:\n  # work\n  plain:\n    auth:\n      password: hunter2  # since May\n\n# end\n",
        "clouds:\r\n  plain:\r\n    auth:\r\n      password: hunter2\r\n",
        "clouds:\n    demo:   # mine\n        auth: {username: alice}\n    plain: {auth: {password: hunter2}}",
        "cache:\n  auth: true",
    ] {
        let person = Person::with_secure(text);
        chmod(&person.secure, 0o640);
        person.ksb(&["clouds", "adopt", "demo"]).ok();
        let now = person.secure();
        let mut rest = now.split_inclusive('\n').map(str::trim_end);
        for line in text.lines() {
            assert!(rest.any(|other| other == line.trim_end()), "{line:?} is missing in {now:?}");
        }
        assert_eq!(person.auth_type("demo"), "v3broker", "{now:?}");
        assert_eq!(mode(&person.secure), 0o640);
        person.ksb(&["clouds", "adopt", "second"]).ok();
        person.ksb(&["clouds", "adopt", "demo", "--undo"]).ok();
        person.ksb(&["clouds", "adopt", "second", "--undo"]).ok();
        assert_eq!((person.secure().as_str(), mode(&person.secure)), (text, 0o640));
        assert_eq!(entries(person.secure.parent().unwrap()), ["secure.yaml"]);
    }
}

#[test]
fn links_stay_links() {
    let person = Person::new();
    let target = person.sandbox.path("home/dotfiles/secure.yaml");
    write(&target, "clouds:\n");
    fs::create_dir_all(person.secure.parent().unwrap()).unwrap();
    symlink("../../dotfiles/secure.yaml", &person.secure).unwrap();
    person.ksb(&["clouds", "adopt", "demo"]).ok();
    assert!(person.secure.symlink_metadata().unwrap().is_symlink());
    assert!(fs::read_to_string(&target).unwrap().contains("v3broker"));
    person.ksb(&["clouds", "adopt", "demo", "--undo"]).ok();
    assert_eq!(fs::read_to_string(&target).unwrap(), "clouds:\n");
    assert!(person.secure.symlink_metadata().unwrap().is_symlink());

    fs::remove_file(&target).unwrap();
    assert!(person.refused(&["clouds", "adopt", "demo"]).contains("a link that leads nowhere"));
}

#[test]
fn all_moves_what_can_be_moved_and_says_why_the_rest_is_not() {
    let person = Person::with_secure("clouds:\n  second:\n    auth_type: v3websso\n");
    let said = person.ksb(&["clouds", "adopt", "--all"]).ok().stdout;
    for line in [
        "demo: `auth_type: v3broker` is written to ",
        "second: left alone: ",
        "factors: `auth_type: v3broker` is written to ",
        "given: `auth_type: v3broker` is written to ",
        "ready: nothing to do, ",
        "robot: left alone: its auth_type is `v3applicationcredential`",
        "plain: left alone: its auth_type is `password`",
        "odd: left alone: ",
        "Undo: ksb clouds adopt --all --undo",
    ] {
        assert!(said.lines().any(|said| said.starts_with(line)), "{line} is missing in {said}");
    }
    assert_eq!(
        (person.auth_type("demo"), person.auth_type("second")),
        ("v3broker".into(), "v3websso".into())
    );
    person.ksb(&["clouds", "adopt", "--all", "--undo"]).ok();
    assert_eq!(person.secure(), "clouds:\n  second:\n    auth_type: v3websso\n");
}

#[test]
fn both_ways_twice_is_the_same_as_once() {
    let person = Person::new();
    person.ksb(&["clouds", "adopt", "--all"]).ok();
    let once = person.secure();
    let said = person.ksb(&["clouds", "adopt", "demo"]).ok().stdout;
    assert!(said.starts_with("demo: nothing to do") && !said.contains("Undo:"), "{said}");
    person.ksb(&["clouds", "adopt", "--all"]).ok();
    assert_eq!(person.secure(), once);
    person.ksb(&["clouds", "adopt", "--all", "--undo"]).ok();
    for args in [
        &["clouds", "adopt", "demo", "--undo"][..],
        &["clouds", "adopt", "--all", "--undo"],
        &["clouds", "adopt", "ready", "--undo"],
    ] {
        let said = person.ksb(args).ok().stdout;
        assert!(said.contains("nothing to undo"), "{said}");
    }
    assert!(!person.secure.exists());
    assert_eq!(person.ksb(&["clouds", "adopt"]).code, Some(2));
    assert_eq!(person.ksb(&["clouds", "adopt", "demo", "--all"]).code, Some(2));
}

#[test]
fn entries_of_other_kinds_are_refused() {
    let mut person = Person::new();
    for (cloud, why) in [
        ("robot", "its auth_type is `v3applicationcredential`"),
        ("plain", "its auth_type is `password`"),
        ("nobody", "no cloud of this name"),
    ] {
        let said = person.refused(&["clouds", "adopt", cloud]);
        assert!(said.starts_with(&format!("ksb: {cloud}: ")) && said.contains(why), "{said}");
    }
    let odd = person.ksb(&["clouds", "adopt", "odd"]);
    assert!(
        odd.code == Some(1) && odd.stderr.contains("`redirect_port` is not a port number"),
        "{}",
        odd.stderr
    );
    person.sandbox.set("OS_AUTH_URL", "https://keystone.example.org/v3");
    assert!(person.refused(&["clouds", "adopt", "envvars"]).contains("OS_* variables"));
    assert!(!person.secure.exists() && !person.secure.parent().unwrap().exists());
}

#[test]
fn what_the_person_wrote_is_not_written_over() {
    for (text, why) in [
        ("clouds:\n  demo:\n    auth_type: v3token\n", "its auth_type is `v3token`"),
        ("clouds:\n  demo:\n    auth_type: v3websso\n", "itself says `auth_type: v3websso`"),
        ("clouds: {demo: {auth: {username: alice}}}\n", "no line can be put in safely"),
        // Line breaks of old: neither parser sees lines where we do.
        ("clouds:\r  demo:\r    auth: {username: alice}\r", "no line can be put in safely"),
    ] {
        let said = Person::with_secure(text).refused(&["clouds", "adopt", "demo"]);
        assert!(said.contains(why), "{said}");
    }
    let broken = Person::with_secure("clouds: [").refused(&["clouds", "adopt", "demo"]);
    assert!(broken.contains("was skipped"), "{broken}");
}

#[test]
fn what_would_change_other_entries_is_put_back() {
    let person = Person::with_secure("clouds:\n  demo: &mine\n    verify: true\n  plain:\n    <<: *mine\n");
    let said = person.refused(&["clouds", "adopt", "demo"]);
    assert!(said.contains("plain: ") && said.contains("is as it was"), "{said}");
    assert_eq!(person.auth_type("demo"), "v3websso");
}

#[test]
fn files_that_are_not_ours_to_replace_are_refused() {
    let person = Person::with_secure("clouds:\n");
    chmod(&person.secure, 0o400);
    assert!(person.refused(&["clouds", "adopt", "demo"]).contains("chmod u+w"));
    chmod(&person.secure, 0o644);
    let said = person.ksb(&["clouds", "adopt", "demo"]).ok();
    assert!(said.stderr.contains("can be read by others. Try: chmod 600 "), "{}", said.stderr);

    let mut person = Person::new();
    write(&person.sandbox.path("home/file"), "");
    let nowhere = person.sandbox.path("home/file/secure.yaml");
    person.sandbox.set("OS_CLIENT_SECURE_FILE", nowhere);
    assert!(person.ksb(&["clouds", "adopt", "demo"]).stderr.contains("nothing was changed"));
}

#[test]
fn a_secure_yaml_that_hides_ones_own_is_left_alone() {
    // A repository's, in the current directory.
    let mut person = Person::new();
    let here = person.sandbox.path("home/secure.yaml");
    write(&here, "clouds: {plain: {auth: {password: x}}}\n");
    let said = person.refused(&["clouds", "adopt", "demo"]);
    assert!(
        said.contains(here.to_str().unwrap()) && said.contains("run this command in another directory"),
        "{said}"
    );

    // What was written elsewhere can be taken back here.
    let there = spawn::output(person.sandbox.ksb(&["clouds", "adopt", "demo"]).current_dir("/"));
    assert!(there.status.success() && person.secure.exists());
    person.ksb(&["clouds", "adopt", "demo", "--undo"]).ok();
    assert!(!person.secure.exists());

    // The one that is named is the user's choice, wherever it is.
    person.sandbox.set("OS_CLIENT_SECURE_FILE", person.sandbox.path("mine/secure.yaml"));
    person.refused(&["clouds", "adopt", "demo"]);
    write(&person.sandbox.path("mine/secure.yaml"), "");
    person.ksb(&["clouds", "adopt", "demo"]).ok();
    assert_eq!(person.auth_type("demo"), "v3broker");

    // One for the whole machine.
    let mut person = Person::new();
    let site = person.sandbox.path("site/openstack/secure.yaml");
    write(&site, "clouds:\n");
    person.sandbox.set("XDG_CONFIG_DIRS", person.sandbox.path("site"));
    let said = person.refused(&["clouds", "adopt", "demo"]);
    assert!(
        said.contains(&format!("install -D -m 600 {} {}", site.display(), person.secure.display())),
        "{said}"
    );
}

#[test]
fn a_folder_with_both_files_keeps_its_own() {
    let sandbox = Sandbox::new();
    let (clouds, secure) = (sandbox.path("home/clouds.yaml"), sandbox.path("home/secure.yaml"));
    write(&clouds, SHARED);
    let own = sandbox.path("home/.config/openstack/secure.yaml");
    let run = |args: &[&str]| -> Outcome { spawn::output(sandbox.ksb(args).env("PATH", "/nowhere")).into() };
    // Without one of its own the entry goes to the user's.
    let said = run(&["clouds", "adopt", "demo"]).ok().stdout;
    assert!(own.exists() && !secure.exists() && said.contains("also counts for other clouds.yaml"), "{said}");
    run(&["clouds", "adopt", "demo", "--undo"]).ok();

    write(&secure, "clouds:\n");
    let said = run(&["clouds", "adopt", "demo"]).ok().stdout;
    assert!(!own.exists() && !said.contains("also counts"), "{said}");
    assert!(fs::read_to_string(&secure).unwrap().contains("v3broker"));
    run(&["clouds", "adopt", "demo", "--undo"]).ok();
    assert_eq!(fs::read_to_string(&secure).unwrap(), "clouds:\n");
    assert_eq!(fs::read_to_string(&clouds).unwrap(), SHARED);
}

#[test]
fn many_at_once_lose_nothing() {
    let mut person = Person::new();
    let names: Vec<_> = (0..12).map(|n| format!("c{n}")).collect();
    let entry = |name| {
        format!("  {name}: {{auth_type: v3websso, auth: {{auth_url: 'https://k/v3', protocol: p}}}}\n")
    };
    let clouds = person.sandbox.path("etc/many.yaml");
    write(&clouds, &("clouds:\n".to_owned() + &names.iter().map(entry).collect::<String>()));
    person.sandbox.set("OS_CLIENT_CONFIG_FILE", &clouds);
    let all_at_once = |args: &dyn Fn(&str) -> Vec<String>| {
        let spawn = |name: &String| {
            let args = args(name);
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            spawn::raw(person.sandbox.ksb(&args).stdout(std::process::Stdio::null()))
        };
        let children: Vec<_> = names.iter().map(spawn).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
    };
    all_at_once(&|name| vec!["clouds".into(), "adopt".into(), name.into()]);
    for name in &names {
        assert_eq!(person.auth_type(name), "v3broker");
    }
    all_at_once(&|name| vec!["clouds".into(), "adopt".into(), name.into(), "--undo".into()]);
    assert!(!person.secure.exists());
}

#[test]
fn each_python_without_the_plugin_is_named_once() {
    let told = |pythons: [(&str, Value); 3]| {
        let mut person = Person::new();
        for (tool, answer) in pythons {
            let python = person.python(&format!("../{tool}/a venv/bin/python"), &answer);
            // As pip writes a script whose interpreter has a blank in its path.
            let line = format!("'''exec' \"{}\" \"$0\" \"$@\"", python.display());
            person.program(tool, &format!("#!/bin/sh\n{line}\n' '''\nimport sys\n"));
        }
        // What no tool stands before is not looked at, and what lies in the current directory is not run.
        person.python("python3.12", &json!({}));
        person.program("../home/bin/python3", "#!/bin/sh\ntouch $HOME/ran\n");
        let path = format!("bin::.:{}:/nowhere", person.sandbox.path("bin").display());
        person.sandbox.set("PATH", path);
        let said = person.ksb(&["clouds", "adopt", "demo"]).ok().stdout;
        assert!(!person.sandbox.path("home/ran").exists(), "a program of the current directory was run");
        said.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let at = |name: &str, more: Value| {
        let mut answer =
            json!({"executable": format!("/opt/{name}/python"), "prefix": format!("/opt/{name}")});
        answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        answer
    };
    let lines = told([
        ("openstack", at("a venv", json!({}))),
        ("ansible", at("a venv", json!({"executable": "/opt/other/wrapper"}))),
        ("ansible-playbook", at("managed", json!({"managed": true}))),
    ]);
    assert_eq!(
        lines,
        [
            "'/opt/a venv/python' -m pip install ./plugin-shim",
            "/opt/managed/python -m pip install --user --break-system-packages ./plugin-shim  \
             # goes into your home directory, not into the system",
        ]
    );
    let lines = told([
        ("openstack", at("old", json!({"version": [3, 9]}))),
        ("ansible", at("bare", json!({"pip": false}))),
        ("ansible-playbook", at("other", json!({"sdk": false}))),
    ]);
    assert!(lines[0].starts_with("/opt/old/python") && lines[0].contains("needs 3.10"), "{lines:?}");
    assert!(lines[1].contains("once pip is there") && lines.len() == 2, "{lines:?}");
}

#[test]
fn a_python_that_never_answers_keeps_nobody() {
    let person = Person::new();
    let hangs = person.program("python3", "#!/bin/sh\n/bin/sleep 1000 & wait\n");
    let answers = person.python("python3.11", &json!({"plugin": true}));
    person.program("openstack", &format!("#!{}\n", answers.display()));
    // The answer is there, though something keeps the pipe open.
    let text = fs::read_to_string(&answers).unwrap();
    fs::write(&answers, text.replace("echo", "/bin/sleep 1000 & echo")).unwrap();
    let outcome = person.ksb(&["clouds", "adopt", "demo"]).ok();
    assert!(outcome.stderr.contains(&format!("{} did not answer", hangs.display())), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("has the plugin"));
}
