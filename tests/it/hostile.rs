//! Requests that are too long, and connections of other users.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::support::api::{request, scope};
use crate::support::desk::Desk;
use crate::support::http::{PATIENCE, Request, Response, connect};
use crate::support::skip::{is_root, skip};
use crate::support::stranger;
use crate::support::tool::Tool;

/// A desk with a cloud, somebody signed in, and what they ask for: the API's question, and a tool.
fn signed_in() -> (Desk, Value, Tool) {
    let desk = Desk::new();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let shown: Value = serde_json::from_str(&desk.run(&["clouds", "show", "--json"]).ok().stdout).unwrap();
    let question = json!({"cloud": shown["cloud"], "scope": shown["scope"]});
    let tool = Tool::of(&desk.api().post("/v1/leases", &question));
    (desk, question, tool)
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
    desk.api().post("/v1/tokens", &question).token_id();
    tool.token();
    desk.api().token_unprompted(&question["cloud"], &scope::project("demo")).token_id();
}

#[test]
fn another_user_of_the_machine_cannot_fill_the_agents_log() {
    if !is_root() {
        skip!("root, to be another user");
    }
    let (desk, _question, tool) = signed_in();
    let request = Request::new("GET", &format!("http://{}/v3", tool.facade)).bytes();
    for _ in 0..5 {
        assert_eq!(stranger::asks(&tool.facade.to_string(), &request), "");
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
