"""A token that needs a person first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from fakes import SIGN_IN_ID, URL, Clock, problem, sign_in, token, until
from keystoneauth1 import exceptions

from keystoneauth_broker import browser, environment, signin
from keystoneauth_broker.errors import BrokerError
from keystoneauth_broker.signin import TokenRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fakes import Agent, Answer, Request
    from keystoneauth1 import session as ks_session

    from keystoneauth_broker.plugin import BrokerAuth

    Make = Callable[..., BrokerAuth]
    Program = Callable[[str, str], Path]

SIGN_IN = f"ksb: demo: sign in: {URL}\n"
WAITING = "ksb: demo: waiting for it; press Ctrl-C to give up\n"
TEN_SECONDS = "ksb: demo: waiting 10 s for it, there is no terminal\n"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "_SETTLED", 0.1)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def waiting(revision: int = 1, **more: Any) -> Answer:
    return 202, sign_in(revision=revision, **more)


def poll(state: str = "waiting", revision: int = 2, **more: Any) -> Answer:
    return 200, sign_in(state, revision, **more)


@pytest.mark.usefixtures("terminal")
def test_signed_in(
    agent: Agent, make: Make, session: ks_session.Session, capfd: pytest.CaptureFixture[str]
) -> None:
    agent.on_tokens(waiting(), token())
    agent.on_poll(
        poll("waiting", 2, notices=["Keystone's own page says why, if it refused."]),
        poll("confirming", 3, notices=["Keystone's own page says why, if it refused.", "alice?"]),
        poll("done", 4),
    )
    assert make(cloud="demo").get_token(session) == "gAAAA-secret-one"
    assert [sent["prompt"] for sent in agent.sent()] == [True, True]
    assert agent.polls() == ["wait=20&seen=1", "wait=20&seen=2", "wait=20&seen=3"]
    assert capfd.readouterr() == (
        "",
        SIGN_IN + WAITING + "ksb: demo: Keystone's own page says why, if it refused.\nksb: demo: alice?\n",
    )
    assert not agent.opened.is_set()


@pytest.mark.usefixtures("terminal")
def test_the_opener_opens(
    agent: Agent,
    make: Make,
    session: ks_session.Session,
    program: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """BROWSER names a plain command that prints, and stays as long as the person takes."""
    script = program("browse", f'echo "$1" > {tmp_path}/url; echo noise; echo noise >&2; exec sleep 0.6')
    monkeypatch.setenv("BROWSER", str(script))
    agent.on_tokens(waiting(opener=True), token())

    def done(_request: Request) -> Answer:
        assert agent.opened.wait(5)
        return poll("done", 2)

    agent.on_poll(done)
    make(cloud="demo").get_token(session)
    until(lambda: _text(tmp_path / "url") == f"{URL}\n")
    assert agent.sent("POST", f"/v1/sign-ins/{SIGN_IN_ID}/opened") == [{}]
    assert capfd.readouterr() == ("", SIGN_IN + WAITING)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("command", "arguments"),
    [("browse --new", f"--new {URL}"), ("browse '--app={url}' -x", f"--app={URL} -x")],
)
def test_the_brokers_browser_command(
    agent: Agent,
    make: Make,
    session: ks_session.Session,
    program: Program,
    tmp_path: Path,
    command: str,
    arguments: str,
) -> None:
    program("browse", f'echo "$@" > {tmp_path}/asked')
    agent.on_tokens(waiting(opener=True, browser=command, private_window=True), token())
    agent.on_poll(lambda _: poll("done", 2) if agent.opened.wait(5) else None)
    make().get_token(session)
    until(lambda: _text(tmp_path / "asked").strip() == arguments)


@pytest.mark.usefixtures("terminal")
def test_takeover(
    agent: Agent, make: Make, session: ks_session.Session, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first opener died, so a later poll makes us the opener. Once."""
    monkeypatch.setenv("BROWSER", str(program("browse", "exit 0")))
    agent.on_tokens(waiting(), token())
    agent.on_poll(
        poll(revision=2, opener=True),
        lambda _: poll(revision=3, opener=True) if agent.opened.wait(5) else None,
        poll("done", 4),
    )
    make().get_token(session)
    assert len(agent.sent("POST", f"/v1/sign-ins/{SIGN_IN_ID}/opened")) == 1


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"browser": "no-such-browser"}, "no-such-browser: No such file or directory"),
        ({"browser": "false"}, "false ended with status 1"),
        ({"browser": "'unbalanced"}, "cannot be read"),
        ({"url": "file:///etc/passwd"}, "its address is no web page"),
        ({"private_window": True}, "no command for a private window"),
    ],
)
def test_no_browser(
    agent: Agent,
    make: Make,
    session: ks_session.Session,
    monkeypatch: pytest.MonkeyPatch,
    answer: dict[str, Any],
    why: str,
) -> None:
    """It stays unsaid, so that the broker may ask another caller; a person reads the address."""
    said: list[str] = []
    monkeypatch.setattr(signin, "say", lambda _cloud, text, **_: said.append(text))
    monkeypatch.setenv("DISPLAY", ":0")

    def done(_request: Request) -> Answer:
        until(lambda: "no browser opened" in "".join(said))
        return poll("done", 2)

    agent.on_tokens(waiting(opener=True, **answer), token())
    agent.on_poll(done)
    make().get_token(session)
    assert why in "".join(said)
    assert not agent.opened.is_set()


@pytest.mark.usefixtures("terminal")
def test_browser_at_the_other_end_of_ssh(
    agent: Agent,
    make: Make,
    session: ks_session.Session,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.7 50022 192.0.2.1 2222")
    monkeypatch.setenv("USER", "alice")
    monkeypatch.delenv("BROWSER", raising=False)
    tunnel = "ssh -N -L 9990:/run/user/7/keystone-broker/callback.sock"
    agent.on_tokens(waiting(tunnel=tunnel), token())
    agent.on_poll(poll("done"))
    make().get_auth_ref(session)
    assert [sent["remote"] for sent in agent.sent()] == [True, True]
    err = capfd.readouterr().err
    guess = "alice@192.0.2.1 is a guess: write what you connect to this one by"
    assert f"({guess}): {tunnel} -p 2222 alice@192.0.2.1\n" in err
    assert f": then open this there, and sign in: {URL}\n" in err


def test_prompt_refused(agent: Agent, make: Make, session: ks_session.Session) -> None:
    agent.on_tokens(
        problem(401, "sign-in-needed", "nobody is signed in", cloud="demo", remedy="ksb login demo")
    )
    with pytest.raises(BrokerError) as caught:
        make(cloud="demo").get_token(session)
    assert str(caught.value) == "demo: nobody is signed in (remedy: run: ksb login demo)"
    assert caught.value.code == "sign-in-needed"
    assert isinstance(caught.value, exceptions.AuthorizationFailure)
    assert agent.sent()[0]["prompt"] is False


@pytest.mark.parametrize(
    ("terminal", "display", "wish", "allowed", "patient"),
    [
        (False, {}, "", False, False),
        (True, {}, "", True, True),
        (False, {"DISPLAY": ":0"}, "", True, False),
        (False, {"WAYLAND_DISPLAY": "wayland-0"}, "", True, False),
        (False, {"DISPLAY": ""}, "", False, False),
        (False, {}, "always", True, True),
        (True, {"DISPLAY": ":0"}, "never", False, False),
        (True, {}, "sometimes", True, True),
    ],
)
def test_who_may_prompt(
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    display: dict[str, str],
    wish: str,
    allowed: bool,
    patient: bool,
) -> None:
    monkeypatch.setattr(environment, "has_terminal", lambda: terminal)
    monkeypatch.setenv("KSB_PROMPT", wish)
    for name, value in display.items():
        monkeypatch.setenv(name, value)
    prompting = environment.Prompting()
    assert (prompting.allowed, prompting.patient) == (allowed, patient)


def test_controlling_terminal() -> None:
    """Seen by a process of its own session, before and after it gets one."""
    script = (
        "import os\n"
        "from keystoneauth_broker.environment import has_terminal\n"
        "before = has_terminal()\n"
        "_, inner = os.openpty()\n"
        "os.close(os.open(os.ttyname(inner), os.O_RDWR))\n"
        "print(before, has_terminal())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], start_new_session=True, check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == "False True\n"


def _request(clock: Clock, **more: str) -> TokenRequest:
    cloud = {"name": "demo", "auth_url": "https://k", "protocol": "openid", **more}
    return TokenRequest({"cloud": cloud, "scope": "unscoped"}, "demo", clock=clock, sleep=clock.sleep)


def test_without_a_terminal_ten_seconds(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    clock = Clock()

    def hold(request: Request) -> Answer:
        wait = int(parse_qs(request.path.partition("?")[2])["wait"][0])
        clock.sleep(min(wait, 4))
        return poll(revision=7)

    agent.on_tokens(waiting())
    agent.on_poll(hold)
    with pytest.raises(BrokerError) as caught:
        _request(clock, name="my cloud", account="work").answer()
    assert clock.now == 1000 + 10
    assert [query.partition("&")[0] for query in agent.polls()] == ["wait=10", "wait=6", "wait=2"]
    text = str(caught.value)
    assert URL in text
    assert "the sign-in goes on" in text
    assert text.endswith("(remedy: run: ksb login 'my cloud' --account work)")
    assert {request.method for request in agent.requests} == {"GET", "POST"}, "nothing is called off"
    assert "waiting 10 s for it" in capfd.readouterr().err


def test_without_a_terminal_but_in_time(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    agent.on_tokens(waiting(), token())
    agent.on_poll(poll("done"))
    assert _request(Clock()).answer()["token_id"] == "gAAAA-secret-one"
    assert capfd.readouterr() == ("", SIGN_IN + TEN_SECONDS)


def test_always_has_patience(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSB_PROMPT", "always")
    clock = Clock()

    def hold(_request: Request) -> Answer:
        clock.sleep(20)
        return poll("done") if clock.now > 1100 else poll(revision=1)

    agent.on_tokens(waiting(), token())
    agent.on_poll(hold)
    assert _request(clock).answer()["token_id"] == "gAAAA-secret-one"


@pytest.mark.usefixtures("terminal")
def test_failure_with_remedy(agent: Agent, make: Make, session: ks_session.Session) -> None:
    agent.on_tokens(waiting())
    _, why = problem(
        403, "sign-in-declined", "alice was refused", cloud="demo", remedy="ksb login demo --switch-user"
    )
    agent.on_poll(poll("failed", 2, problem=why))
    with pytest.raises(BrokerError) as caught:
        make(cloud="demo").get_token(session)
    assert str(caught.value) == "demo: alice was refused (remedy: run: ksb login demo --switch-user)"
    assert caught.value.code == "sign-in-declined"


@pytest.mark.usefixtures("terminal")
def test_three_rounds_at_most(
    agent: Agent, make: Make, session: ks_session.Session, capfd: pytest.CaptureFixture[str]
) -> None:
    agent.on_tokens(waiting())
    agent.on_poll(poll("done"))
    with pytest.raises(BrokerError, match="3 sign-ins were not enough"):
        make(cloud="demo").get_token(session)
    assert len(agent.sent()) == 3
    assert capfd.readouterr().err == SIGN_IN + WAITING, "each address once"


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("how", ["gone", "restarted"])
def test_agent_dies_while_we_wait(
    agent: Agent,
    make: Make,
    session: ks_session.Session,
    program: Program,
    tmp_path: Path,
    how: str,
) -> None:
    program("ksb", f'echo "$@" >> {tmp_path}/asked')
    other: dict[str, Any] = {"id": "f" * 32, "url": "http://127.0.0.1:40124/start/new"}
    agent.on_tokens(waiting(), waiting(**other), token())
    agent.on_poll(None if how == "gone" else problem(404, "unknown-sign-in", "no such sign-in"))
    agent.on("GET", f"/v1/sign-ins/{'f' * 32}", (200, sign_in("done", 2, **other)))
    assert make().get_token(session) == "gAAAA-secret-one"
    assert (tmp_path / "asked").exists() is (how == "gone")


@pytest.mark.usefixtures("terminal")
def test_agent_that_does_not_hold_its_polls(agent: Agent) -> None:
    clock = Clock()
    agent.on_tokens(waiting(), token())
    agent.on_poll(*[poll(revision=1)] * 5, poll("done"))
    _request(clock).answer()
    assert clock.now == 1002.5


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_ends_the_wait_only(
    agent: Agent, make: Make, session: ks_session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.on_tokens(waiting())

    def interrupt(_request: Request) -> Answer:
        os.kill(os.getpid(), 2)
        return poll(revision=2)

    agent.on_poll(interrupt)
    plugin = make()
    # A shell starts what it puts into the background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            plugin.get_token(session)
    finally:
        signal.signal(signal.SIGINT, before)
    assert {request.method for request in agent.requests} == {"GET", "POST"}
    agent.on_tokens(token())
    assert plugin.get_token(session) == "gAAAA-secret-one", "no lock is left held"


@pytest.mark.usefixtures("terminal")
def test_stderr_may_be_closed(
    agent: Agent, make: Make, session: ks_session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    agent.on_tokens(waiting(), token())
    agent.on_poll(poll("done"))
    assert make().get_token(session) == "gAAAA-secret-one"


ASKS = [{"factor": "password", "text": "Password of alice (Default)"}]
CODE = [{"factor": "totp", "text": "One-time code of alice (Default)"}]
FACTORS = f"/v1/sign-ins/{SIGN_IN_ID}/factors"


def asking(asks: list[dict[str, str]], revision: int = 1, *, opener: bool = True) -> dict[str, Any]:
    return sign_in("asking", revision, url=None, opener=opener, asks=asks)


@pytest.mark.usefixtures("terminal")
def test_a_person_is_asked_on_the_terminal(
    agent: Agent,
    make: Make,
    session: ks_session.Session,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    agent.on_tokens((202, asking(ASKS)), token())
    agent.on_poll((200, asking(CODE, 2, opener=False)), poll("done", 3))
    refused = "Keystone does not take the password of alice (Default)"
    agent.on("POST", FACTORS, problem(403, "factor-refused", refused), (204, None))
    typed, questions = iter(["wrong", "right", "123456"]), []

    def ask(question: str) -> str:
        questions.append(question)
        return next(typed)

    monkeypatch.setattr("getpass.getpass", ask)
    assert make(cloud="demo").get_token(session) == "gAAAA-secret-one"
    password = "ksb: demo: Password of alice (Default): "
    assert questions == [password, password, "ksb: demo: One-time code of alice (Default): "]
    assert agent.sent("POST", FACTORS) == [
        {"factors": {"password": "wrong"}},
        {"factors": {"password": "right"}},
        {"factors": {"totp": "123456"}},
    ]
    assert agent.opened.is_set()
    said = capfd.readouterr().err
    assert said == f"ksb: demo: {refused}\n"


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_at_the_question_calls_the_sign_in_off(
    agent: Agent, make: Make, session: ks_session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.on_tokens((202, asking(ASKS)))
    agent.on("DELETE", f"/v1/sign-ins/{SIGN_IN_ID}", (204, None))

    def interrupted(_question: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("getpass.getpass", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(cloud="demo").get_token(session)
    assert len(agent.sent("DELETE", f"/v1/sign-ins/{SIGN_IN_ID}")) == 1


def test_without_a_terminal_nobody_is_asked(
    agent: Agent, make: Make, session: ks_session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KSB_PROMPT", "always")
    agent.on_tokens((202, asking(ASKS)))
    agent.on("DELETE", f"/v1/sign-ins/{SIGN_IN_ID}", (204, None))
    with pytest.raises(BrokerError) as caught:
        make(cloud="demo").get_token(session)
    assert str(caught.value) == (
        "demo: Password of alice (Default) must be typed, and this process has no terminal to ask on "
        "(remedy: run: ksb login demo)"
    )


# --- a workload's command ---

NEEDED = problem(401, "bearer-needed", "the caller has to run it")


def command(line: str, **more: Any) -> dict[str, Any]:
    return {"cloud": "demo", "sign_in": "workload", "token_command": line, **more}


def test_a_command_runs_only_when_the_broker_asks(
    agent: Agent, make: Make, session: ks_session.Session, program: Program, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    program("mint", f'echo "$1" >> {ran}; echo h.c.s')
    agent.on_tokens(token())
    make(**command("mint 'for keystone'")).get_token(session)
    assert not ran.exists()
    agent.on_tokens(NEEDED, token())
    make(**command("mint 'for keystone'")).get_token(session)
    assert _text(ran) == "for keystone\n"
    sent = [request["cloud"]["sign_in"]["workload"]["command"].get("token") for request in agent.sent()]
    assert sent == [None, None, "h.c.s\n"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hang", "took more than 1 s"),
        ("fail", "exit status 3"),
        ("no-such-program", "No such file"),
        ("'", "No closing quotation"),
    ],
)
def test_a_command_that_gives_no_token(
    agent: Agent, make: Make, session: ks_session.Session, program: Program, line: str, why: str
) -> None:
    program("hang", "sleep 1000 & sleep 1000")
    program("fail", "echo canary; exit 3")
    agent.on_tokens(NEEDED)
    with pytest.raises(BrokerError) as caught:
        make(**command(line, token_command_limit=1)).get_token(session)
    assert f"demo: `{line}`, the command for a token, failed: " in str(caught.value)
    assert why in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_command_of_the_current_folder_is_not_run(
    agent: Agent, make: Make, session: ks_session.Session, program: Program, tmp_path: Path
) -> None:
    program("mint", f"touch {tmp_path}/ran")
    (tmp_path / "here" / "clouds.yaml").write_text("clouds: {}")
    agent.on_tokens(NEEDED)
    with pytest.raises(BrokerError, match="is not run: the entry may lie in the current directory"):
        make(**command("mint")).get_token(session)
    assert not (tmp_path / "ran").exists()
