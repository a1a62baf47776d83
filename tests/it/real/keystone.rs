//! The stack's Keystone as its administrator uses it, and as any service asks it about tokens.

use std::sync::Once;

use reqwest::{Certificate, Client, Method};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::front::stack;

/// Requests with this name are the tests' own and not counted.
pub const AGENT: &str = "ksb-test";

/// A client of one front.
pub struct Keystone {
    runtime: Runtime,
    client: Client,
    url: String,
}

/// What Keystone says.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// `X-Subject-Token`
    pub token: Option<String>,
    pub json: Value,
}

impl Keystone {
    pub fn new(auth_url: &str) -> Self {
        static TLS: Once = Once::new();
        TLS.call_once(|| {
            // The library's own code may have been first.
            rustls::crypto::ring::default_provider().install_default().ok();
        });
        let ca = Certificate::from_pem(&std::fs::read(stack("CA")).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // A connection that is kept dies unseen while the test waits for other things.
        let client =
            Client::builder().tls_certs_only([ca]).no_proxy().user_agent(AGENT).pool_max_idle_per_host(0);
        let client = client.build().unwrap();
        Self { runtime, client, url: auth_url.to_owned() }
    }

    /// One request; `path` begins after `/v3`.
    #[track_caller]
    pub fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let token = response.headers().get("x-subject-token").map(|id| id.to_str().unwrap().to_owned());
            let json = serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
            Answer { status, token, json }
        })
    }

    /// Signs the administrator in.
    pub fn admin(&self) -> Admin<'_> {
        let user = json!({
            "name": stack("ADMIN_USER"), "domain": {"id": "default"}, "password": stack("ADMIN_PASSWORD"),
        });
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": "admin", "domain": {"id": "default"}}},
        }});
        let answer = self.call(Method::POST, "/auth/tokens", &[], Some(&body));
        Admin { keystone: self, token: answer.token.unwrap_or_else(|| panic!("{}", answer.json)) }
    }

    /// What a service does with a token that comes with a request: is it good?
    pub fn accepts(&self, token: &str) -> bool {
        self.look_at(token).is_some()
    }

    /// What Keystone says of a token, unless it knows it not (any more).
    #[track_caller]
    pub fn look_at(&self, token: &str) -> Option<Value> {
        let headers = [("X-Auth-Token", token), ("X-Subject-Token", token)];
        let answer = self.call(Method::GET, "/auth/tokens", &headers, None);
        match answer.status {
            200 => Some(answer.json["token"].clone()),
            401 | 404 => None,
            status => panic!("{status}: {}", answer.json),
        }
    }
}

/// Keystone's administrator.
pub struct Admin<'k> {
    keystone: &'k Keystone,
    pub token: String,
}

impl Admin<'_> {
    /// One request; `path` begins after `/v3`.
    #[track_caller]
    pub fn call(&self, method: Method, path: &str) -> Answer {
        self.keystone.call(method, path, &[("X-Auth-Token", &self.token)], None)
    }

    #[track_caller]
    pub fn revoke(&self, token: &str) {
        let headers = [("X-Auth-Token", self.token.as_str()), ("X-Subject-Token", token)];
        let answer = self.keystone.call(Method::DELETE, "/auth/tokens", &headers, None);
        assert_eq!(answer.status, 204, "{}", answer.json);
    }

    /// The id of the thing of that name: `find("domains", "lab")`.
    #[track_caller]
    pub fn find(&self, kind: &str, name: &str) -> String {
        let found = self.call(Method::GET, &format!("/{kind}?name={name}")).json;
        found[kind][0]["id"].as_str().unwrap_or_else(|| panic!("no {name} in {kind}: {found}")).to_owned()
    }
}
