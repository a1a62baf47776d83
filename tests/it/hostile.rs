//! Whoever is rude to the agent's sockets has nobody else wait.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::api::{request, scope};
use crate::support::desk::Desk;
use crate::support::http::{PATIENCE, Request, Response, connect};
use crate::support::sandbox::{KSB, end_of};
use crate::support::spawn;
use crate::support::stranger;
use crate::support::tool::Tool;

/// More connections than are served at once.
const CROWD: usize = 600;

/// A desk with a cloud, somebody signed in, and what they ask for: the API's question, and a tool.
fn signed_in() -> (Desk, Value, Tool) {
    signed_in_at(Desk::new())
}

fn signed_in_at(desk: Desk) -> (Desk, Value, Tool) {
    desk.run_and_sign_in(&["login"], "alice").ok();
    let shown: Value = serde_json::from_str(&desk.run(&["cloud", "show", "--json"]).ok().stdout).unwrap();
    let question = json!({"cloud": shown["cloud"], "scope": shown["scope"]});
    let tool = Tool::of(&desk.api().post("/v1/leases", &question));
    (desk, question, tool)
}

/// A request that is never finished.
struct Rude<'b> {
    name: &'static str,
    said: &'b [u8],
}

/// What they may stop at: nothing said, half a head, all but the last byte of the body.
fn manners(whole: &[u8]) -> [Rude<'_>; 3] {
    let half = whole.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    [
        Rude { name: "idle", said: b"" },
        Rude { name: "half a head", said: &whole[..half] },
        Rude { name: "half a body", said: &whole[..whole.len() - 1] },
    ]
}

#[track_caller]
fn soon(what: &str, serve: impl Fn()) {
    let began = Instant::now();
    for _ in 0..20 {
        serve();
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{what}: {:?}", began.elapsed());
}

#[test]
fn a_crowd_that_never_finishes_at_the_agents_socket_holds_up_nobody() {
    let (desk, question, _tool) = signed_in();
    let socket = desk.sandbox.paths().socket;
    let whole = request("POST", "/v1/tokens", Some(&question)).bytes();
    for rude in manners(&whole) {
        let crowd: Vec<_> = (0..CROWD)
            .map(|_| {
                let mut stream = UnixStream::connect(&socket).unwrap();
                stream.write_all(rude.said).unwrap();
                stream
            })
            .collect();
        soon(rude.name, || {
            desk.api().post("/v1/tokens", &question).token_id();
        });
        drop(crowd);
    }
}

#[test]
fn a_crowd_that_never_finishes_at_the_facade_holds_up_nobody() {
    let (_desk, _question, tool) = signed_in();
    let whole = tool.auth(&tool.credential(), None).bytes();
    for rude in manners(&whole) {
        let crowd: Vec<_> = (0..CROWD)
            .map(|_| {
                let mut stream = connect(&format!("http://{}", tool.facade).parse().unwrap()).unwrap();
                stream.write_all(rude.said).unwrap();
                stream
            })
            .collect();
        soon(rude.name, || drop(tool.token()));
        drop(crowd);
    }
}

#[test]
fn a_crowd_that_waits_for_a_person_keeps_nobody_from_a_token() {
    let (desk, question, _tool) = signed_in();
    let mut other = question.clone();
    other["cloud"]["account"] = json!("another");
    let waiting = desk.api().post("/v1/sign-ins", &json!({"cloud": other["cloud"]})).sign_in();
    let socket = desk.sandbox.paths().socket;
    let path = format!("/v1/sign-ins/{}?seen={}&wait=60", waiting.id, waiting.json["revision"]);
    let crowd: Vec<_> = (0..CROWD)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(&request("GET", &path, None).bytes()).unwrap();
            stream
        })
        .collect();
    soon("waiting", || {
        desk.api().post("/v1/tokens", &question).token_id();
    });
    drop(crowd);
}

#[test]
fn crowds_at_all_ports_at_once_find_room_under_the_usual_limit_of_descriptors() {
    keystone_broker::platform::descriptors::all();
    let desk = Desk::new();
    let script = "ulimit -Sn 1024; exec \"$0\" agent --ensure";
    end_of(spawn::start(desk.sandbox.command("sh").args(["-c", script, KSB]))).ok();
    let (desk, question, tool) = signed_in_at(desk);
    let socket = desk.sandbox.paths().socket;
    // No more than each listener serves; together with what else is open, more than 1024.
    let at_socket: Vec<_> = (0..510).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let at_facade: Vec<_> = (0..510).map(|_| TcpStream::connect(tool.facade).unwrap()).collect();
    soon("both crowds", || {
        desk.api().post("/v1/tokens", &question).token_id();
        tool.token();
    });
    drop((at_socket, at_facade));
    assert!(!desk.sandbox.agent_log().contains("accept failed"), "{}", desk.sandbox.agent_log());
}

#[test]
fn what_is_too_long_is_refused_and_costs_nobody_else_anything() {
    let (desk, question, tool) = signed_in();
    let socket = desk.sandbox.paths().socket;
    let sent_to_socket = |request: &Request| {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        refused(stream, &request.bytes())
    };
    let sent_to_facade = |request: &Request| {
        let stream = connect(&format!("http://{}", tool.facade).parse().unwrap()).unwrap();
        refused(stream, &request.bytes())
    };
    let giant = "x".repeat(8 << 20);
    let api = |request: Request| sent_to_socket(&request);
    let asked = request("POST", "/v1/tokens", Some(&question));
    assert_ne!(api(asked.clone().add("X-Giant", &giant)), Some(200));
    assert_ne!(api(asked.clone().target(&format!("/{giant}"))), Some(200));
    assert_eq!(api(asked.clone().body("application/json", giant.clone())), Some(400));
    assert_ne!(api((0..1000).fold(asked, |asked, number| asked.add(&format!("X-{number}"), "x"))), Some(200));
    let asked = tool.auth(&tool.credential(), None);
    assert_ne!(sent_to_facade(&asked.clone().add("X-Giant", &giant)), Some(201));
    assert_eq!(sent_to_facade(&asked.clone().body("application/json", giant)), Some(413));
    soon("afterwards", || {
        desk.api().post("/v1/tokens", &question).token_id();
        tool.token();
    });
    desk.api().token_unprompted(&question["cloud"], &scope::project("demo")).token_id();
}

#[test]
fn another_user_of_the_machine_cannot_fill_the_agents_log() {
    let (desk, _question, tool) = signed_in();
    let request = Request::new("GET", &format!("http://{}/v3", tool.facade)).bytes();
    for _ in 0..5 {
        let Some(said) = stranger::asks(&tool.facade.to_string(), &request) else {
            eprintln!("skipped: only root can be somebody else");
            return;
        };
        assert_eq!(said, "");
    }
    let log = desk.sandbox.agent_log();
    assert_eq!(log.matches("a connection of another user was refused").count(), 1, "{log}");
}

/// The status of the answer, where the other side gave one before it closed.
fn refused(mut stream: impl Read + Write, bytes: &[u8]) -> Option<u16> {
    // The other side need not read what it does not want.
    stream.write_all(bytes).ok();
    let mut answer = Vec::new();
    // A reset behind the answer says that the rest of the question was not read (seen on unix sockets).
    stream.read_to_end(&mut answer).ok();
    Response::read(&*answer).ok().map(|response| response.status)
}
