//! *Keep me signed in while this tab is open*, in a real Chromium that throttles and freezes its background tabs.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::real::front::{Front, Log, stack};
use crate::real::wait;
use crate::support::api::Api;
use crate::support::spawn;

/// A browser that stays open, driven by `tests/stack/tab.mjs`.
struct Person {
    node: Child,
    acts: ChildStdin,
    sees: BufReader<ChildStdout>,
}

impl Person {
    fn open(front: &Front, url: &str) -> (Self, Value) {
        let mut node = front.sandbox.command("node");
        node.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/tab.mjs")).arg(url);
        if let Some(shots) = std::env::var_os("KSB_BROWSER_SHOTS") {
            node.env("KSB_BROWSER_SHOTS", shots);
        }
        let mut node = spawn::raw(node.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let (acts, sees) = (node.stdin.take().unwrap(), BufReader::new(node.stdout.take().unwrap()));
        let mut person = Self { node, acts, sees };
        let first = person.seen();
        (person, first)
    }

    #[track_caller]
    fn does(&mut self, act: &str) -> Value {
        writeln!(self.acts, "{act}").unwrap();
        self.seen()
    }

    #[track_caller]
    fn seen(&mut self) -> Value {
        let mut line = String::new();
        self.sees.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the browser ended: {line:?}"))
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.node.kill().ok();
        self.node.wait().ok();
    }
}

#[test]
fn a_tab_in_the_background_keeps_its_person_signed_in_and_never_comes_to_the_front() {
    let mut front = Front::free();
    let log = Log::short();
    front.clouds(&[front.entry_at(&log.url, "demo", "project_name: demo, project_domain_name: lab")]);
    front.sandbox.set("KSB_NO_BROWSER", "1");
    let login = front.start(&["login"]);
    let url = login.says("sign in: ").split("sign in: ").nth(1).unwrap().to_owned();
    let (mut person, first) = Person::open(&front, &url);
    login.ends().ok();
    assert_eq!((&first["state"], &first["kept"]), (&json!("done"), &json!("true")), "{first:#}");
    assert!(front.ksb(&["status"]).ok().stdout.contains("a browser tab keeps it signed in"));

    let shown: Value = serde_json::from_str(&front.ksb(&["clouds", "show", "--json"]).ok().stdout).unwrap();
    let api = Api::new(front.sandbox.paths().socket);
    let served = || api.token_unprompted(&shown["cloud"], &shown["scope"]);
    let within = |seconds, what: &str, is_so: &dyn Fn() -> bool| {
        let limit = Duration::from_secs(seconds);
        let found = wait::every(Duration::from_millis(500), limit, || is_so().then_some(()));
        found.unwrap_or_else(|| panic!("waited {seconds} s for {what}"));
    };
    let in_background = |seen: &Value| {
        assert_eq!(seen["front"], json!({"visible": "visible", "focus": true}), "{seen:#}");
        assert_eq!((&seen["visible"], &seen["focus"]), (&json!("hidden"), &json!(false)), "{seen:#}");
    };

    // Tokens live for a minute, and the tab goes round every half: past the first one's end nobody was asked.
    let throttled = person.does("look");
    in_background(&throttled);
    within(100, "two rounds", &|| log.counts().logins >= 3);
    assert_eq!(served().status, 200);
    // Its last page comes a moment after Keystone's answer.
    let seen = wait::until("the tab's last page", || {
        Some(person.does("look")).filter(|seen| seen["state"] == "done" && seen["kept"] == "true")
    });
    in_background(&seen);
    assert_eq!((&seen["kept"], front.browsers_opened()), (&json!("true"), 0), "{seen:#}");
    assert!(seen["title"].as_str().unwrap().starts_with("Keeps you signed in: demo"), "{seen:#}");

    // Frozen, it misses its turn; the session ends as without it. Thawed, it goes at once.
    person.does("freeze");
    within(80, "the session's end", &|| served().status != 200);
    let rounds = log.counts().logins;
    served().problem("sign-in-needed");
    person.does("thaw");
    within(30, "the round after the thaw", &|| log.counts().logins > rounds);
    within(30, "a token", &|| served().status == 200);

    // The identity provider asks: the tab's title says so, and nothing else happens.
    person.does("forget");
    within(80, "the session's end", &|| served().status != 200);
    let seen = person.does("look");
    in_background(&seen);
    assert!(seen["url"].as_str().unwrap().starts_with(&stack("IDP")), "{seen:#}");
    assert!(seen["title"].as_str().unwrap().contains("Sign in"), "{seen:#}");
    served().problem("sign-in-needed");
    assert_eq!(front.browsers_opened(), 0);
    // Somebody sees it, and signs in there.
    let seen = person.does("sign in");
    assert_eq!(seen["state"], "done", "{seen:#}");
    within(30, "a token", &|| served().status == 200);
    assert!(front.ksb(&["status"]).ok().stdout.contains("a browser tab keeps it signed in"));

    person.does("close");
    within(40, "the tab to be missed", &|| {
        !front.ksb(&["status"]).ok().stdout.contains("a browser tab keeps it signed in")
    });
    let rounds = log.counts().logins;
    within(80, "the session's end", &|| served().status != 200);
    assert_eq!(log.counts().logins, rounds, "a closed tab ends it");
}
