//! Whoever is rude to the agent's sockets has nobody else wait.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use serde_json::{Value, json};

use crate::support::api::{request, scope};
use crate::support::desk::Desk;
use crate::support::http::{PATIENCE, Request, Response, connect};
use crate::support::sandbox::{KSB, end_of};
use crate::support::skip::{is_root, skip};
use crate::support::spawn;
use crate::support::stranger;
use crate::support::tool::Tool;

/// More connections than are served at once.
const CROWD: usize = 600;
/// No more of them are sent away for want of room, also when others come.
const NO_ROOM: usize = 200;

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

/// What those who never finish a request have said: nothing, half a head, all but the last byte of the body; and all three.
fn manners(whole: &[u8]) -> Vec<(&'static str, Vec<&[u8]>)> {
    let half = whole.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    let (idle, half, all_but_one) = (&b""[..], &whole[..half], &whole[..whole.len() - 1]);
    vec![
        ("idle", vec![idle]),
        ("half a head", vec![half]),
        ("half a body", vec![all_but_one]),
        ("some of each", vec![idle, half, all_but_one]),
    ]
}

/// A crowd, each of whom says one of these things.
fn crowd<S: Write + Into<OwnedFd>>(connect: impl Fn() -> S, says: &[&[u8]]) -> Vec<OwnedFd> {
    let come = |said: &&[u8]| {
        let mut stream = connect();
        stream.write_all(said).unwrap();
        stream.into()
    };
    says.iter().cycle().take(CROWD).map(come).collect()
}

/// Whether the other side has neither answered nor left.
fn waits(stream: &OwnedFd) -> bool {
    recv(stream, &mut [0][..], RecvFlags::DONTWAIT) == Err(Errno::AGAIN)
}

/// Twenty are served while a crowd is there. An answer counts when most of the crowd still wait behind it; those who take
/// too long for a request are sent away, and then another crowd comes.
#[track_caller]
fn serves_beside(what: &str, crowd: impl Fn() -> Vec<OwnedFd>, serve: impl Fn()) {
    let (began, mut served) = (Instant::now(), 0);
    while served < 20 {
        let crowd = crowd();
        while served < 20 {
            serve();
            if crowd.iter().filter(|one| waits(one)).count() < crowd.len() - NO_ROOM {
                break;
            }
            served += 1;
        }
        assert!(began.elapsed() < 4 * PATIENCE, "{what}: {served} were served beside a crowd");
    }
}

#[test]
fn a_crowd_that_never_finishes_at_the_agents_socket_holds_up_nobody() {
    let (desk, question, _tool) = signed_in();
    let socket = desk.sandbox.paths().socket;
    let whole = request("POST", "/v1/tokens", Some(&question)).bytes();
    for (name, says) in manners(&whole) {
        serves_beside(
            name,
            || crowd(|| UnixStream::connect(&socket).unwrap(), &says),
            || drop(desk.api().post("/v1/tokens", &question).token_id()),
        );
    }
}

#[test]
fn a_crowd_that_never_finishes_at_the_facade_holds_up_nobody() {
    let (_desk, _question, tool) = signed_in();
    let whole = tool.auth(&tool.credential(), None).bytes();
    for (name, says) in manners(&whole) {
        let connect = || TcpStream::connect(tool.facade).unwrap();
        serves_beside(name, || crowd(connect, &says), || drop(tool.token()));
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
    let asks = request("GET", &path, None).bytes();
    serves_beside(
        "waiting",
        || crowd(|| UnixStream::connect(&socket).unwrap(), &[&asks]),
        || drop(desk.api().post("/v1/tokens", &question).token_id()),
    );
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
    let both = || {
        let at_socket = (0..510).map(|_| UnixStream::connect(&socket).unwrap().into());
        at_socket.chain((0..510).map(|_| TcpStream::connect(tool.facade).unwrap().into())).collect()
    };
    serves_beside("both", both, || {
        desk.api().post("/v1/tokens", &question).token_id();
        tool.token();
    });
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
