//! A user at a desk: `ksb` itself in a home of its own, a double for the cloud, a browser that is
//! one of ours. Time is the real one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::sync::Arc;

use keystone_broker::platform::clock::SystemClock;
use keystone_broker::platform::machine;
use keystone_broker::platform::paths::make_private;
use keystone_broker::vault::{Place, Vault, Wish};
use serde_json::Value;

use super::agent::CHEAP;
use super::api::Api;
use super::browser::{Browser, Shown};
use super::keystone::Keystone;
use super::port;
use super::sandbox::{Outcome, Sandbox, end_of};

/// The desk.
pub struct Desk {
    pub sandbox: Sandbox,
    pub keystone: Keystone,
    pub port: u16,
}

impl Desk {
    /// With a clouds.yaml that has one entry, `demo`, for the project demo.
    pub fn new() -> Self {
        Self::in_sandbox(Sandbox::new())
    }

    /// The same in a sandbox of one's choice.
    pub fn in_sandbox(sandbox: Sandbox) -> Self {
        let keystone = Keystone::start(Arc::new(SystemClock));
        let port = port::free();
        keystone.trust(&format!("http://localhost:{port}/auth/websso/"));
        let mut desk = Self { sandbox, keystone, port };
        desk.sandbox.with_browser();
        desk.write_cloud("project_name: demo\n      project_domain_name: lab");
        desk
    }

    /// The same, with an agent that keeps a vault, whose facade has the same port after a restart.
    pub fn with_vault() -> Self {
        Self::new().and_vault()
    }

    /// The same for a desk that has none yet.
    pub fn and_vault(self) -> Self {
        let mut desk = self;
        let passphrase = desk.sandbox.path("passphrase");
        fs::write(&passphrase, "correct horse\n").unwrap();
        fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
        desk.sandbox.set("KSB_PASSPHRASE_FILE", passphrase);
        fs::write(desk.sandbox.paths().config, format!("facade_port = {}\n", port::free())).unwrap();
        desk
    }

    /// The same with a vault that is there already, and whose passphrase costs nothing: for agents that start often.
    pub fn with_quick_vault() -> Self {
        let desk = Self::with_vault();
        let folder = desk.sandbox.paths().state;
        make_private(&folder).unwrap();
        let vault = Vault::at(Place {
            folder,
            machine: machine::id(),
            wish: Wish::Passphrase,
            passphrase_file: Some(desk.sandbox.path("passphrase")),
            cost: CHEAP,
        });
        vault.save(br#"{"sessions": [], "lapsed": [], "ending": [], "pins": []}"#, None);
        assert_eq!(vault.report().problem, None);
        desk
    }

    /// Where no Python of this machine is on the PATH, and nothing else either: `ksb` asks each for the plugin.
    pub fn without_pythons(mut self) -> Self {
        let bin = self.sandbox.path("bin");
        fs::create_dir_all(&bin).unwrap();
        self.sandbox.set("PATH", bin);
        self
    }

    /// Has `demo` signed in to at the identity provider itself, which gives a refresh token.
    pub fn with_refresh_tokens(self) -> Self {
        let issuer = format!("{}/idp", self.keystone.url());
        self.write_cloud(&format!(
            "project_name: demo\n      project_domain_name: lab\n      client_id: cli\n      \
             discovery_endpoint: {issuer}/.well-known/openid-configuration"
        ));
        self
    }

    /// `demo` as the API takes it.
    pub fn cloud(&self) -> Value {
        let shown = self.run(&["clouds", "show", "--json"]).ok().stdout;
        serde_json::from_str::<Value>(&shown).unwrap()["cloud"].clone()
    }

    /// Writes a clouds.yaml with nothing but `demo`, and these lines more under `auth`.
    pub fn write_cloud(&self, more: &str) {
        self.sandbox.clouds(&format!("clouds:\n{}", self.entry("demo", more)));
    }

    /// An entry of clouds.yaml with these lines more under `auth`.
    pub fn entry(&self, name: &str, more: &str) -> String {
        format!(
            "  {name}:\n    auth_type: v3broker\n    auth:\n      auth_url: {}\n      identity_provider: lab-idp\n      \
             protocol: openid\n      redirect_port: {}\n      {more}\n",
            self.keystone.url(),
            self.port
        )
    }

    /// Runs a command that no user needs to see to.
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.sandbox.run(args)
    }

    /// Runs a command that opens a browser, where this user signs in.
    pub fn run_and_sign_in(&self, args: &[&str], person: &str) -> Outcome {
        let ksb = self.sandbox.start(args);
        let shown = self.sign_in(person);
        assert_eq!(shown.state, "done", "{shown:?}");
        end_of(ksb)
    }

    /// The user signs in, as soon as the browser is opened.
    pub fn sign_in(&self, person: &str) -> Shown {
        Browser::of(person).tab().sign_in(&self.sandbox.opened())
    }

    /// A command that waits for its user, and the address it opened.
    pub fn waiting(&self, args: &[&str]) -> (Child, String) {
        let ksb = self.sandbox.start(args);
        let url = self.sandbox.opened();
        (ksb, url)
    }

    /// The API of the agent that takes a dead one's place.
    pub fn api_of_a_new_agent(&self) -> Api {
        self.run(&["agent", "start"]).ok();
        self.api()
    }

    /// The agent's API.
    pub fn api(&self) -> Api {
        Api::new(self.sandbox.paths().socket)
    }
}
