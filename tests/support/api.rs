//! The broker's API as a program sees it: JSON by hand, every answer held against the document.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::http::{PATIENCE, Request, Response};
use super::openapi;
use super::spawn;

/// A client of the agent at a socket.
#[derive(Clone)]
pub struct Api {
    socket: PathBuf,
}

/// What the agent said.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl Api {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// A connection on which nothing is said yet.
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends anything at all.
    #[track_caller]
    pub fn raw(&self, request: &Request) -> Response {
        let mut stream = self.connect();
        stream.write_all(&request.bytes()).unwrap();
        Response::read(stream).unwrap()
    }

    /// Sends a request whose answer is left for [`Response::read`]; who drops it, dies.
    pub fn begin(&self, method: &str, path: &str, body: Option<&Value>) -> UnixStream {
        let mut stream = self.connect();
        stream.write_all(&request(method, path, body).bytes()).unwrap();
        stream
    }

    /// The same for a question.
    pub fn ask(&self, path: &str, question: &Value) -> UnixStream {
        self.begin("POST", path, Some(question))
    }

    /// Sends a request, and leaves without its answer once `then` has returned.
    pub fn say(&self, method: &str, path: &str, then: impl FnOnce()) {
        let _stream = self.begin(method, path, None);
        then();
    }

    /// Sends a request whose answer must be as documented.
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let response = self.raw(&request(method, path, body));
        openapi::check_answer(method, path, response.status, response.header("content-type"), &response.body);
        assert_eq!(response.header("ksb-version"), Some(env!("CARGO_PKG_VERSION")), "{response:?}");
        let json = if response.body.is_empty() { Value::Null } else { response.json() };
        Answer { status: response.status, json, text: response.body }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None)
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, None)
    }

    /// A request that is as documented.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        openapi::check_question("POST", path, body);
        let ask = || self.call("POST", path, Some(body));
        // A sign-in may begin, whose callback's port must be free.
        if path == "/v1/sign-ins" || body["prompt"] == true { spawn::undisturbed(ask) } else { ask() }
    }

    /// A request without a body.
    #[track_caller]
    pub fn poke(&self, path: &str) -> Answer {
        self.call("POST", path, None)
    }

    /// Asks for a token, as a program that a user started.
    #[track_caller]
    pub fn token(&self, cloud: &Value, scope: &Value) -> Answer {
        self.post("/v1/tokens", &json!({"cloud": cloud, "scope": scope, "prompt": true}))
    }

    /// Asks for a token, as a program that runs by itself.
    #[track_caller]
    pub fn token_unprompted(&self, cloud: &Value, scope: &Value) -> Answer {
        self.post("/v1/tokens", &json!({"cloud": cloud, "scope": scope}))
    }

    /// Says that a service refused a token, and asks for another one.
    #[track_caller]
    pub fn token_instead_of(&self, rejected: &str, cloud: &Value, scope: &Value) -> Answer {
        self.post(
            "/v1/tokens",
            &json!({"cloud": cloud, "scope": scope, "rejected": rejected, "prompt": true}),
        )
    }

    /// `ksb login`.
    #[track_caller]
    pub fn login(&self, cloud: &Value) -> Answer {
        self.post("/v1/sign-ins", &json!({"cloud": cloud}))
    }

    /// `ksb logout`: what is said of each session.
    #[track_caller]
    pub fn logout(&self, cloud: &Value) -> Vec<Value> {
        let answer = self.post("/v1/logout", &json!({"cloud": cloud}));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json["sessions"].as_array().unwrap().clone()
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.get("/v1/status").json
    }

    /// A sign-in as it stands now.
    #[track_caller]
    pub fn look(&self, id: &str) -> Value {
        self.get(&format!("/v1/sign-ins/{id}")).json["sign_in"].clone()
    }

    /// Waits until `enough` of a sign-in, which must be before it hangs.
    #[track_caller]
    pub fn wait(&self, id: &str, enough: impl Fn(&Value) -> bool) -> Value {
        let mut sign_in = self.look(id);
        while !enough(&sign_in) {
            let seen = &sign_in["revision"];
            let wait = PATIENCE.as_secs() - 5;
            let next =
                self.get(&format!("/v1/sign-ins/{id}?seen={seen}&wait={wait}")).json["sign_in"].clone();
            assert!(next["revision"] != *seen || enough(&next), "nothing happens any more: {next:#}");
            sign_in = next;
        }
        sign_in
    }

    /// Waits until a sign-in is over, however it ends.
    #[track_caller]
    pub fn over(&self, id: &str) -> Value {
        self.wait(id, |sign_in| sign_in["state"] == "done" || sign_in["state"] == "failed")
    }
}

/// A request to the socket.
pub fn request(method: &str, path: &str, body: Option<&Value>) -> Request {
    let request = Request::new(method, &format!("http://ksb{path}"));
    match body {
        Some(body) => request.body("application/json", body.to_string()),
        None => request,
    }
}

impl Answer {
    /// The token's id; the answer must be a token.
    #[track_caller]
    pub fn token_id(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json["token_id"].as_str().unwrap().to_owned()
    }

    /// The sign-in that must come first.
    #[track_caller]
    pub fn sign_in(&self) -> SignIn {
        assert_eq!(self.status, 202, "{}", self.text);
        let sign_in = &self.json["sign_in"];
        let text = |name: &str| sign_in[name].as_str().unwrap().to_owned();
        SignIn { id: text("id"), url: text("url"), opener: sign_in["opener"] == true, json: sign_in.clone() }
    }

    /// The problem, which must have this code.
    #[track_caller]
    pub fn problem(&self, code: &str) -> &Value {
        assert_eq!(self.json["code"], code, "{}", self.text);
        assert_eq!(self.json["status"], self.status, "{}", self.text);
        assert_eq!(self.json["type"], format!("urn:ksb:problem:{code}"), "{}", self.text);
        &self.json
    }
}

/// A sign-in that waits for its user.
#[derive(Debug, Clone)]
pub struct SignIn {
    pub id: String,
    pub url: String,
    pub opener: bool,
    pub json: Value,
}

/// The scopes of Keystone's API.
pub mod scope {
    use serde_json::{Value, json};

    pub fn unscoped() -> Value {
        json!("unscoped")
    }

    pub fn project(name: &str) -> Value {
        json!({"project": {"name": name, "domain": {"name": "lab"}}})
    }
}
