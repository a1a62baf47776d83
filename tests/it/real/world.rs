//! The scenarios of the doubles, on the real stack.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use serde_json::{Value, json};

use super::front::{Front, Turn, stack};
use super::wait;
use crate::scenarios::tests_in;
use crate::support::api::Api;
use crate::support::spawn;
use crate::support::world::World;

tests_in!(Stack::new());

/// A front with an agent that nobody is signed in to.
struct Stack {
    front: Front,
    api: Api,
    /// The front with a path, from when it is asked for.
    below: OnceCell<Turn>,
}

impl Stack {
    fn new() -> Self {
        let front = Front::free();
        front.ksb(&["agent", "--ensure"]).ok();
        let api = Api::new(front.sandbox.paths().socket);
        Self { front, api, below: OnceCell::new() }
    }
}

impl World for Stack {
    fn api(&self) -> &Api {
        &self.api
    }

    fn cloud(&self) -> Value {
        json!({
            "name": "demo",
            "auth_url": self.front.auth_url(),
            "identity_provider": "lab-idp",
            "protocol": "openid",
            "tls": {"ca_file": stack("CA")},
            "sign_in": {"redirect_port": self.front.callback_port()},
        })
    }

    fn auth_urls(&self) -> Vec<String> {
        let root = self.front.auth_url().replace("/v3", "");
        ["", "/", "/v3", "/v3/"].map(|end| format!("{root}{end}")).into()
    }

    fn auth_url_with_path(&self) -> String {
        let port = stack("PREFIX_FRONT");
        self.below.get_or_init(|| Turn::wait(&format!("port-{port}")));
        format!("https://keystone.localhost:{port}/identity/v3")
    }

    fn people(&self) -> [&'static str; 2] {
        const USERS: [&str; 8] = ["user0", "user1", "user2", "user3", "user4", "user5", "user6", "user7"];
        [USERS[usize::from(self.front.number)], "bob"]
    }

    fn browse(&self, url: &str, person: &str) -> String {
        People::get().browse(url, person)
    }

    fn logins(&self) -> usize {
        self.front.counts().logins
    }

    fn exchanges(&self) -> usize {
        self.front.counts().exchanges
    }

    fn revoke(&self, token: &str) {
        self.front.keystone.admin().revoke(token);
    }

    fn accepts(&self, token: &str) -> bool {
        self.front.keystone.accepts(token)
    }
}

/// The one browser of this process (`person.mjs`). It ends when its input does, and so with this process.
struct People {
    questions: Mutex<ChildStdin>,
    answers: Arc<Mutex<HashMap<u64, Sender<String>>>>,
}

impl People {
    fn get() -> &'static Self {
        static PEOPLE: OnceLock<People> = OnceLock::new();
        PEOPLE.get_or_init(|| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/real/person.mjs");
            let mut node = Command::new("node");
            node.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut node = spawn::raw(&mut node);
            let questions = Mutex::new(node.stdin.take().unwrap());
            let answers = Arc::new(Mutex::new(HashMap::<u64, Sender<String>>::new()));
            let (heard, lines) = (answers.clone(), BufReader::new(node.stdout.take().unwrap()));
            thread::spawn(move || {
                for line in lines.lines() {
                    let answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
                    let asker = heard.lock().unwrap().remove(&answer["id"].as_u64().unwrap());
                    asker.unwrap().send(answer["state"].as_str().unwrap().to_owned()).ok();
                }
                // It ended: whoever still waits, waits for nothing.
                heard.lock().unwrap().clear();
                node.wait().ok();
            });
            Self { questions, answers }
        })
    }

    fn browse(&self, url: &str, person: &str) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (id, (answer, state)) = (NEXT.fetch_add(1, Ordering::Relaxed), channel());
        self.answers.lock().unwrap().insert(id, answer);
        let question = json!({"id": id, "url": url, "person": person});
        writeln!(self.questions.lock().unwrap(), "{question}").unwrap();
        state.recv_timeout(wait::LIMIT).expect("the browser answers")
    }
}
