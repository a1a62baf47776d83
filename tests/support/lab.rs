//! The doubles put together: a cloud, an agent, a clock, and browsers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::agent::Agent;
use super::api::{Api, SignIn};
use super::browser::Browser;
use super::clock::ManualClock;
use super::http::PATIENCE;
use super::keystone::Keystone;
use super::port;
use super::world::World;

/// A world of doubles whose time stands still.
pub struct Lab {
    pub clock: Arc<ManualClock>,
    pub keystone: Keystone,
    pub agent: Agent,
    /// The port of the callback, which Keystone trusts.
    pub port: u16,
}

impl Lab {
    pub fn new() -> Self {
        Self::with_config("")
    }

    /// With a `config.toml` for the agent.
    pub fn with_config(toml: &str) -> Self {
        let clock = ManualClock::new();
        let keystone = Keystone::start(clock.clone());
        let port = port::free();
        keystone.trust(&format!("http://localhost:{port}/auth/websso/"));
        Self { agent: Agent::with_config(clock.clone(), toml), clock, keystone, port }
    }

    /// The agent ends and starts again.
    pub fn restart_agent(mut self) -> Self {
        self.agent = self.agent.restart(self.clock.clone());
        self
    }

    /// The address that Keystone posts to.
    pub fn callback(&self) -> String {
        format!("http://localhost:{}/auth/websso/", self.port)
    }

    /// A page of the callback's origin.
    pub fn at_callback(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    /// The cloud with other options.
    pub fn cloud_with(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut cloud = self.cloud();
        change(&mut cloud);
        cloud
    }

    /// The same cloud by the authorization code flow.
    pub fn oidc(&self) -> Value {
        self.cloud_with(|cloud| {
            let issuer = format!("{}/idp", self.keystone.url());
            cloud["sign_in"] = json!({
                "way": "oidc_code", "redirect_host": "127.0.0.1", "redirect_port": 0,
                "oidc": {
                    "discovery_endpoint": format!("{issuer}/.well-known/openid-configuration"),
                    "client_id": "cli",
                },
            });
        })
    }

    /// A sign-in that waits for its user.
    #[track_caller]
    pub fn login(&self) -> SignIn {
        self.api().login(&self.cloud()).sign_in()
    }

    /// Somebody signs in from the beginning to the end.
    #[track_caller]
    pub fn signed_in(&self, person: &str) -> SignIn {
        let sign_in = self.login();
        assert_eq!(self.browse(&sign_in.url, person), "done");
        assert_eq!(self.api().over(&sign_in.id)["state"], "done");
        sign_in
    }
}

impl World for Lab {
    fn api(&self) -> &Api {
        self.agent.api()
    }

    fn cloud(&self) -> Value {
        json!({
            "name": "demo",
            "auth_url": format!("{}/v3", self.keystone.url()),
            "identity_provider": "lab-idp",
            "protocol": "openid",
            "sign_in": {"redirect_port": self.port},
        })
    }

    fn auth_urls(&self) -> Vec<String> {
        ["", "/", "/v3", "/v3/"].map(|end| format!("{}{end}", self.keystone.url())).into()
    }

    fn auth_url_with_path(&self) -> String {
        format!("{}/identity/v3", self.keystone.url())
    }

    fn people(&self) -> [&'static str; 2] {
        ["alice", "bob"]
    }

    fn browse(&self, url: &str, person: &str) -> String {
        Browser::of(person).tab().sign_in(url).state
    }

    fn logins(&self) -> usize {
        self.keystone.logins()
    }

    fn exchanges(&self) -> usize {
        self.keystone.exchanges()
    }

    fn revoke(&self, token: &str) {
        self.keystone.revoke(token);
    }

    fn accepts(&self, token: &str) -> bool {
        self.keystone.accepts(token)
    }
}

/// Looks until it is so: for what the agent does behind its answers.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited for this: {what}");
        // Who is waited for needs the processor.
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
