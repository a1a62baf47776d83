//! A tool with a lease, which takes the facade for its cloud's Keystone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::api::Answer;
use super::http::{PATIENCE, Request, Response};

/// Whoever holds a lease.
#[derive(Debug, Clone)]
pub struct Tool {
    pub id: String,
    pub secret: String,
    pub handle: String,
    pub facade: SocketAddr,
}

impl Tool {
    /// The one that a lease was made for.
    #[track_caller]
    pub fn of(made: &Answer) -> Self {
        assert_eq!(made.status, 201, "{}", made.text);
        let text = |at: &str| made.json.pointer(at).unwrap().as_str().unwrap().to_owned();
        let facade = text("/auth_url").strip_prefix("http://").unwrap().replace("/v3", "").parse().unwrap();
        Self { id: text("/lease/id"), secret: text("/secret"), handle: text("/handle"), facade }
    }

    /// A request to the facade.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, &format!("http://{}{path}", self.facade))
    }

    /// A request with a token.
    pub fn with(&self, token: &str, method: &str, path: &str) -> Request {
        self.request(method, path).add("X-Auth-Token", token)
    }

    /// What stands in `identity` for an application credential.
    pub fn credential(&self) -> Value {
        json!({
            "methods": ["application_credential"],
            "application_credential": {"id": self.id, "secret": self.secret},
        })
    }

    /// `POST /v3/auth/tokens` with whatever proof and scope.
    pub fn auth(&self, identity: &Value, scope: Option<&Value>) -> Request {
        let mut body = json!({"auth": {"identity": identity}});
        if let Some(scope) = scope {
            body["auth"]["scope"] = scope.clone();
        }
        self.request("POST", "/v3/auth/tokens").body("application/json", body.to_string())
    }

    /// Asks for a token, on a connection of its own.
    #[track_caller]
    pub fn ask(&self) -> Response {
        self.auth(&self.credential(), None).send()
    }

    /// The same where nobody may be there.
    pub fn try_ask(&self) -> std::io::Result<Response> {
        self.auth(&self.credential(), None).try_send()
    }

    /// Asks for one of a scope.
    #[track_caller]
    pub fn ask_for(&self, scope: &Value) -> Response {
        self.auth(&self.credential(), Some(scope)).send()
    }

    /// A token, which there must be.
    #[track_caller]
    pub fn token(&self) -> String {
        token(&self.ask())
    }

    /// A connection on which it asks again and again.
    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.facade).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection { stream, tool: self.clone() }
    }
}

/// A token in the facade's answer.
#[track_caller]
pub fn token(response: &Response) -> String {
    assert_eq!(response.status, 201, "{response:?}");
    response.header("x-subject-token").unwrap().to_owned()
}

/// A connection that stays.
pub struct Connection {
    stream: TcpStream,
    tool: Tool,
}

impl Connection {
    /// Asks for a token.
    #[track_caller]
    pub fn ask(&mut self) -> Response {
        let request = self.tool.auth(&self.tool.credential(), None).set("Connection", "keep-alive");
        self.stream.write_all(&request.bytes()).unwrap();
        self.answer()
    }

    #[track_caller]
    fn answer(&mut self) -> Response {
        let mut bytes = Vec::new();
        let head = loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
            if bytes.ends_with(b"\r\n\r\n") {
                break String::from_utf8(bytes.clone()).unwrap().to_ascii_lowercase();
            }
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        bytes.extend(body);
        Response::read(&bytes[..]).unwrap()
    }
}
