//! The scenarios of the doubles, on the real stack.

use std::cell::OnceCell;

use serde_json::{Value, json};

use super::chromium;
use super::front::{Front, Turn, stack};
use crate::scenarios::tests_in;
use crate::support::api::Api;
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
        front.ksb(&["agent", "start"]).ok();
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
        chromium::sign_in(url, person, &self.front.sandbox.path(person))
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
