//! Promise 5: a token that is revoked is replaced without a word; one that a service merely refuses is kept.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::front::{Counts, Front, Turn, stack};
use super::program::run;

const MY_PROJECTS: [&str; 7] = ["federation", "project", "list", "-f", "value", "-c", "Name"];

#[test]
fn a_revoked_token_costs_one_exchange_and_a_service_that_says_401_costs_nothing() {
    let front = Front::free();
    let grumpy = front.entry("grumpy", "demo") + "    network_service_type: broken\n";
    front.clouds(&[front.entry("demo", "demo"), grumpy]);
    let first = front.token(&[]);
    let one = Counts { browsers: 1, logins: 1, exchanges: 1 };
    assert_eq!(front.counts(), one);

    // Keystone takes the token back: the next command does not notice.
    front.keystone.admin().revoke(&first);
    assert!(front.answer(&MY_PROJECTS).contains("production"));
    assert_eq!(front.counts(), Counts { exchanges: 2, ..one }, "{:?}", front.all_requests());
    let second = front.token(&[]);
    assert_ne!(second, first);

    // A service takes no token at all: its word against Keystone's.
    let service = Grumpy::start();
    let failed = run(front.openstack(&["--os-cloud", "grumpy", "network", "list"]));
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("401"), "{failed:?}");
    assert!(failed.stderr.contains("/v2.0/networks"), "the service is named: {failed:?}");
    assert_eq!(
        service.heard(),
        [second.as_str(), second.as_str()],
        "asked once, and once more with the same token"
    );
    front.requests();
    assert!(front.answer(&MY_PROJECTS).contains("production"));
    assert_eq!(front.token(&[]), second);
    assert!(front.requests().iter().all(|request| request.method == "GET"));
    assert_eq!(front.counts(), Counts { exchanges: 2, ..one }, "{:?}", front.all_requests());
}

/// The catalog's service `broken`: answers 401 whatever comes.
struct Grumpy {
    address: String,
    tokens: Arc<Mutex<Vec<String>>>,
    /// Ends when somebody comes and asks nothing.
    service: Option<JoinHandle<()>>,
    _turn: Turn,
}

impl Grumpy {
    fn start() -> Self {
        let turn = Turn::wait("broken-service");
        let address = stack("BROKEN_SERVICE").replace("http://", "").replace('/', "");
        let listener = TcpListener::bind(&address).unwrap();
        let tokens = Arc::new(Mutex::new(Vec::new()));
        let heard = tokens.clone();
        let service = thread::spawn(move || {
            while let Some(token) = refuse(listener.accept().unwrap().0) {
                heard.lock().unwrap().push(token);
            }
        });
        Self { address, tokens, service: Some(service), _turn: turn }
    }

    /// The tokens that came.
    fn heard(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }
}

impl Drop for Grumpy {
    fn drop(&mut self) {
        drop(TcpStream::connect(&self.address));
        self.service.take().map(JoinHandle::join);
    }
}

/// Reads one request and refuses it. Returns the token that came with it, which may be empty; nothing, when no
/// request came.
fn refuse(mut stream: TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let body = r#"{"error": {"code": 401, "title": "Unauthorized", "message": "go away"}}"#;
    let length = body.len();
    let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nConnection: close";
    write!(stream, "{answer}\r\nContent-Length: {length}\r\n\r\n{body}").ok()?;
    let head = String::from_utf8(head).unwrap();
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let mut tokens = headers.filter(|(name, _)| name.eq_ignore_ascii_case("x-auth-token"));
    Some(tokens.next().map_or(String::new(), |(_, token)| token.trim().to_owned()))
}
