"""Finding the agent, trusting it, and starting one."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes import Agent, Answer, Request, problem, token

from keystoneauth_broker import __version__
from keystoneauth_broker import agent as client
from keystoneauth_broker.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystoneauth1 import session as ks_session

    from keystoneauth_broker.plugin import BrokerAuth

    Make = Callable[..., BrokerAuth]
    Program = Callable[[str, str], Path]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make sockets of other users")
NOBODY = 65534


def test_socket_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    ours: set[str] = set()
    monkeypatch.setattr(client, "_is_our_directory", ours.__contains__)
    assert client.socket_path() == "/tmp/keystone-broker-4242/broker.sock"
    ours.add("/run/user/4242")
    assert client.socket_path() == "/run/user/4242/keystone-broker/broker.sock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/runtime")
    assert client.socket_path() == "/run/user/4242/keystone-broker/broker.sock"
    ours.add("/runtime")
    assert client.socket_path() == "/runtime/keystone-broker/broker.sock"
    monkeypatch.setenv("KSB_SOCK", "/here")
    assert client.socket_path() == "/here"


def test_directories_that_are_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for path, is_ours in (
        (str(tmp_path), True),
        (str(tmp_path / "link"), True),
        (str(tmp_path / "file"), False),
        (str(tmp_path / "none"), False),
        (".", False),
        ("", False),
    ):
        assert client._is_our_directory(path) is is_ours, path
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert not client._is_our_directory(str(tmp_path))


def test_an_agent_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that was started in another environment is ours if it has our state directory."""
    first, fallback = tmp_path / "first", tmp_path / "fallback"
    monkeypatch.setattr(client, "_directories", lambda: [str(first), str(fallback)])
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    fallback.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(fallback / "broker.sock"))
        listener.listen()
        for lock, expected in (
            ("1\n/state/keystone-broker\n", fallback),
            ("1\n/state/keystone-broker/\n", fallback),
            ("1\n/other/keystone-broker\n", first),
            ("1\n", first),
            ("", first),
        ):
            (fallback / "broker.lock").write_text(lock)
            assert client.socket_path() == str(expected / "broker.sock"), lock
    (fallback / "broker.lock").write_text("1\n/state/keystone-broker\n")
    assert client.socket_path() == str(first / "broker.sock"), "nobody listens any more"


@pytest.mark.parametrize(
    ("make_it", "why"),
    [
        (lambda path, target: path.symlink_to(target), "it is not a directory"),
        (lambda path, _: path.write_text(""), "it is not a directory"),
        (lambda path, _: (path.mkdir(), path.chmod(0o770)), "other users may change it"),
        (lambda path, _: path.mkdir(0o700), None),
        (lambda path, _: (path.mkdir(0o700), path.parent.chmod(0o777)), "other users may replace it"),
    ],
)
def test_a_shared_directory_that_is_not_safe(
    monkeypatch: pytest.MonkeyPatch,
    make: Make,
    session: ks_session.Session,
    tmp_path: Path,
    make_it: Callable[[Path, Path], object],
    why: str | None,
) -> None:
    """Another user may have made the name in `/tmp` first: nothing is sent there."""
    shared, target = tmp_path / "tmp/shared", tmp_path / "target"
    shared.parent.mkdir()
    target.mkdir()
    make_it(shared, target)
    monkeypatch.delenv("KSB_SOCK", raising=False)
    monkeypatch.setattr(client, "_shared_directory", lambda: str(shared))
    monkeypatch.setattr(client, "_directories", lambda: [str(shared)])
    if why is None:
        assert client._flaw_of_shared() is None
        return
    with pytest.raises(BrokerError) as caught:
        make(cloud="demo").get_token(session)
    assert f"{shared} is not safe to use: {why}" in str(caught.value)
    assert "XDG_RUNTIME_DIR" in str(caught.value)
    assert "KSB_SOCK" in str(caught.value)


def test_where_ksb_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: Program) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/bin/python"))
    assert client.find_ksb() is None

    def put(folder: Path) -> str:
        folder.mkdir(parents=True)
        (folder / "ksb").write_text("#!/bin/sh\n")
        (folder / "ksb").chmod(0o755)
        return str(folder / "ksb")

    for folder in ("home/.local/bin", "home/.cargo/bin", "venv/bin"):
        expected = put(tmp_path / folder)
        assert client.find_ksb() == expected
    on_path = put(tmp_path / "on-path")
    monkeypatch.setenv("PATH", str(tmp_path / "on-path"))
    assert client.find_ksb() == on_path
    monkeypatch.setenv("KSB", "~/.local/bin/ksb")
    assert client.find_ksb() == str(tmp_path / "home/.local/bin/ksb")
    monkeypatch.setenv("KSB", "/nonexistent/ksb")
    assert client.find_ksb() is None


def test_no_agent_and_no_ksb(
    monkeypatch: pytest.MonkeyPatch, make: Make, session: ks_session.Session, tmp_path: Path
) -> None:
    monkeypatch.setenv("KSB_SOCK", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(BrokerError) as caught:
        make(cloud="demo").get_token(session)
    text = str(caught.value)
    assert text.startswith(
        f"demo: no agent answers at {tmp_path}/none: the program ksb is not there (remedy:"
    )
    assert "install ksb as the README of keystone-broker says" in text
    assert "KSB_SOCK" in text
    assert "\n" not in text


def test_what_ksb_prints_is_on_no_disk(program: Program) -> None:
    """`ksb clouds show --with-secrets` prints passwords."""
    program("ksb", "readlink /proc/self/fd/1; echo said >&2; readlink /proc/self/fd/2")
    places = client.run_ksb("clouds", "show").splitlines()
    assert [place.partition(":")[0] for place in places] == ["/memfd", "/memfd"]


@pytest.mark.parametrize("left_behind", [False, True])
def test_agent_is_started(
    agent: Agent, make: Make, session: ks_session.Session, program: Program, tmp_path: Path, left_behind: bool
) -> None:
    """By `ksb agent start`, here a stub that wakes the fake agent; a dead socket does not disturb."""
    agent.stop()
    if left_behind:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(agent.path)
    program(
        "ksb",
        f'echo "$@" >> {tmp_path}/asked; echo out; echo err >&2; '
        f"while [ ! -e {tmp_path}/up ]; do sleep 0.01; done",
    )
    agent.on_tokens(token())

    def wake() -> None:
        while not (tmp_path / "asked").exists():
            pass
        if left_behind:
            os.unlink(agent.path)
        agent.start()
        (tmp_path / "up").touch()

    thread = threading.Thread(target=wake)
    thread.start()
    assert make().get_token(session) == "gAAAA-secret-one"
    thread.join()
    assert (tmp_path / "asked").read_text() == "agent start\n"


def test_agent_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, make: Make, session: ks_session.Session, program: Program, tmp_path: Path
) -> None:
    monkeypatch.setenv("KSB_SOCK", str(tmp_path / "none"))
    # A child that keeps stderr open, as an agent that was started would, holds nobody up.
    program("ksb", "sleep 60 & echo 'ksb: it ended at once. Try: ksb agent' >&2; echo $! > $HOME/pid; exit 1")
    with pytest.raises(BrokerError) as caught:
        make(cloud="demo").get_token(session)
    os.kill(int((tmp_path / "home/pid").read_text()), 9)
    assert str(caught.value) == (
        f"demo: no agent answers at {tmp_path}/none: it ended at once (remedy: run: ksb agent)"
    )
    program("ksb", "exit 9")
    with pytest.raises(BrokerError, match="`ksb agent start` ended with status 9"):
        make(cloud="demo").get_token(session)


def test_agent_that_always_dies(
    agent: Agent, make: Make, session: ks_session.Session, program: Program, tmp_path: Path
) -> None:
    program("ksb", f"echo >> {tmp_path}/asked")
    agent.on_tokens(None)
    with pytest.raises(BrokerError, match="goes away before it answers"):
        make().get_token(session)
    assert len(agent.sent()) == 3
    assert (tmp_path / "asked").read_text() == "\n\n"


def test_an_agent_that_makes_room_is_asked_again(
    agent: Agent, make: Make, session: ks_session.Session
) -> None:
    leaving = problem(503, "agent-leaving", "the agent makes room for a fresh one; ask again")
    agent.on_tokens(leaving, leaving, token())
    assert make().get_token(session) == "gAAAA-secret-one"
    assert len(agent.sent()) == 3


def test_an_older_agent_makes_room_for_what_it_refuses(
    agent: Agent, make: Make, session: ks_session.Session
) -> None:
    agent.version = "0.0.9"
    agent.on_tokens(problem(400, "invalid-request", "cloud: unknown field"), token())

    def upgraded(_request: Request) -> Answer:
        agent.version = __version__
        return 204, None

    agent.on("POST", "/v1/handover", upgraded)
    assert make().get_token(session) == "gAAAA-secret-one"
    assert len(agent.sent(path="/v1/handover")) == 1


@pytest.mark.parametrize(
    ("version", "answer", "asked"),
    [
        ("0.0.9", problem(409, "handover-refused", "there is no newer program"), 1),
        ("0.0.9", None, 1),
        ("0.0.9", (204, None), 1),  # and is as old as before
        (__version__, (204, None), 0),
        ("1000.0.0", (204, None), 0),
        ("unknown", (204, None), 0),
    ],
)
def test_what_an_agent_refuses_is_said(
    agent: Agent, make: Make, session: ks_session.Session, version: str, answer: Answer, asked: int
) -> None:
    agent.version = version
    agent.on_tokens(problem(422, "scope-unsupported", "not for this user"))
    agent.on("POST", "/v1/handover", answer)
    with pytest.raises(BrokerError, match="not for this user"):
        make().get_token(session)
    assert len(agent.sent(path="/v1/handover")) == asked


def test_what_an_older_agent_answers_is_taken(agent: Agent, make: Make, session: ks_session.Session) -> None:
    agent.version = "0.0.9"
    agent.on_tokens(token())
    assert make().get_token(session) == "gAAAA-secret-one"
    assert agent.sent(path="/v1/handover") == []


def test_a_locked_agent_is_said_in_one_line(agent: Agent, make: Make, session: ks_session.Session) -> None:
    agent.on_tokens(problem(423, "locked", "the agent is locked", remedy="ksb unlock"))
    with pytest.raises(BrokerError) as caught:
        make(cloud="demo").get_token(session)
    assert str(caught.value) == "demo: the agent is locked (remedy: run: ksb unlock)"


def test_agent_that_says_nothing(
    agent: Agent, make: Make, session: ks_session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER", 0.05)
    never = threading.Event()
    agent.on_tokens(lambda _request: (never.wait(5), None)[1])
    with pytest.raises(BrokerError, match="did not answer within"):
        make().get_token(session)
    never.set()


def test_something_else_answers(make: Make, session: ks_session.Session, agent: Agent) -> None:
    with pytest.raises(BrokerError, match="is not a socket"):
        _at(agent.path + ".file", lambda path: Path(path).touch(), make, session)

    def speak(path: str) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()

        def answer() -> None:
            peer, _ = server.accept()
            while b'"prompt"' not in peer.recv(65536):
                pass
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
            peer.close()
            server.close()

        threading.Thread(target=answer, daemon=True).start()

    with pytest.raises(BrokerError, match="not an agent this plugin understands"):
        _at(agent.path + ".html", speak, make, session)


def _at(path: str, prepare: Callable[[str], object], make: Make, session: ks_session.Session) -> None:
    prepare(path)
    os.environ["KSB_SOCK"] = path
    make().get_token(session)


def test_a_link_to_our_own_socket(
    agent: Agent, make: Make, session: ks_session.Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agent.on_tokens(token())
    os.symlink(agent.path, tmp_path / "link")
    monkeypatch.setenv("KSB_SOCK", str(tmp_path / "link"))
    assert make().get_token(session) == "gAAAA-secret-one"


@needs_root
@pytest.mark.parametrize("what", ["file", "link", "listener"])
def test_socket_of_another_user(
    run_folder: str, make: Make, session: ks_session.Session, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whoever listens there would learn which clouds we use, and could send us to a page of their own."""
    path = os.path.join(run_folder, "foreign.sock")
    monkeypatch.setenv("KSB_SOCK", path)
    heard: list[bytes] = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(path if what != "link" else f"{path}.real")
    if what == "listener":  # bound by us, listening as someone else
        os.seteuid(NOBODY)
        try:
            server.listen()
        finally:
            os.seteuid(0)
    else:
        if what == "link":
            os.symlink(f"{path}.real", path)
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        server.listen()

    def listen() -> None:
        server.settimeout(0.2)
        try:
            peer, _ = server.accept()
            heard.append(peer.recv(1000))
            peer.close()
        except TimeoutError:
            pass

    thread = threading.Thread(target=listen)
    thread.start()
    with pytest.raises(BrokerError, match=f"belongs to user id {NOBODY}, not to you") as caught:
        make().get_token(session)
    assert caught.value.code == "foreign-peer"
    thread.join()
    server.close()
    assert b"".join(heard) == b""


def test_a_user_does_not_trust_roots_socket(
    agent: Agent, make: Make, session: ks_session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.on_tokens(token())
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(BrokerError, match="belongs to user id"):
        make().get_token(session)
    assert agent.sent() == []


def test_an_agent_that_answers_before_it_has_read_everything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = str(tmp_path / "broker.sock")
    monkeypatch.setenv("KSB_SOCK", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()

        def hasty() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=hasty)
        thread.start()
        # More than fits into the socket's buffers.
        reply = client.call("POST", "/v1/tokens", "x" * 4_000_000)
        thread.join()
    assert (reply.status, reply.body) == (404, {})
