"""A token that the broker has at hand."""

from __future__ import annotations

import datetime as dt
import logging
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Keystone, problem, token
from keystoneauth1 import exceptions
from keystoneauth1 import session as ks_session

from keystoneauth_broker.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakes import Agent, Request

    from keystoneauth_broker.plugin import BrokerAuth

    Make = Callable[..., BrokerAuth]

SECRET = "gAAAA-secret-one"


def test_served(
    agent: Agent, make: Make, session: ks_session.Session, capfd: pytest.CaptureFixture[str]
) -> None:
    agent.on_tokens(token())
    plugin = make()
    assert plugin.get_token(session) == SECRET
    assert plugin.get_token(session) == SECRET
    assert plugin.get_project_id(session) == "p1"
    assert plugin.get_access(session).username == "alice"
    assert agent.sent() == [
        {
            "cloud": {
                "auth_url": "https://keystone.example.org/v3",
                "identity_provider": "lab",
                "protocol": "openid",
                "tls": {"verify": True},
            },
            "scope": {"project": {"name": "demo"}},
            "prompt": False,
        }
    ]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_catalog(agent: Agent, make: Make, session: ks_session.Session, chunked: bool) -> None:
    agent.chunked = chunked
    agent.on_tokens(token(padding=700))
    catalog = make().get_access(session).service_catalog.catalog
    assert len(catalog) == 701


def test_asked_each_time_and_nothing_cached(agent: Agent, make: Make, session: ks_session.Session) -> None:
    agent.on_tokens(token("one"), token("two"))
    plugin = make()
    assert plugin.get_auth_ref(session).auth_token == "one"
    assert plugin.auth_ref is None
    assert plugin.get_auth_ref(session).auth_token == "two"
    assert plugin.get_cache_id() is None
    assert plugin.interactive_unscoped_auth is False


def test_rejected_token_is_reported_once(agent: Agent, make: Make, session: ks_session.Session) -> None:
    agent.on_tokens(token("one"), token("two"), token("three"))
    plugin = make()
    assert plugin.invalidate() is False
    plugin.get_token(session)
    assert plugin.invalidate() is True
    assert plugin.invalidate() is True, "another thread, whose request was refused with the same token"
    assert plugin.get_token(session) == "two"
    assert plugin.get_auth_ref(session).auth_token == "three"
    assert [sent.get("rejected") for sent in agent.sent()] == [None, "one", None]


def test_rejection_survives_a_failure(agent: Agent, make: Make, session: ks_session.Session) -> None:
    agent.on_tokens(token("one"), problem(503, "keystone-unreachable", "no route"), token("two"))
    plugin = make()
    plugin.get_token(session)
    plugin.invalidate()
    with pytest.raises(BrokerError, match="no route"):
        plugin.get_token(session)
    assert plugin.get_token(session) == "two"
    assert [sent.get("rejected") for sent in agent.sent()] == [None, "one", "one"]


def test_service_refuses_a_revoked_token(agent: Agent, make: Make) -> None:
    keystone = Keystone(good="two")
    try:
        agent.on_tokens(
            token("one", endpoint=f"{keystone.url}/v3"), token("two", endpoint=f"{keystone.url}/v3")
        )
        plugin = make()
        session = ks_session.Session(auth=plugin)
        found = session.get("/projects", endpoint_filter={"service_type": "identity", "interface": "public"})
        assert found.json()["projects"][0]["name"] == "demo"
        assert keystone.tokens_seen == ["one", "two"]
        assert [sent.get("rejected") for sent in agent.sent()] == [None, "one"]
    finally:
        keystone.stop()


def test_service_refuses_a_good_token(agent: Agent, make: Make) -> None:
    """Keystone says that the token is fine: the broker serves it again, and nobody loops."""
    keystone = Keystone(good="another")
    try:
        agent.on_tokens(token("one", endpoint=f"{keystone.url}/v3"))
        session = ks_session.Session(auth=make())
        with pytest.raises(exceptions.Unauthorized):
            session.get("/projects", endpoint_filter={"service_type": "identity", "interface": "public"})
        assert keystone.tokens_seen == ["one", "one"]
        assert [sent.get("rejected") for sent in agent.sent()] == [None, "one"]
    finally:
        keystone.stop()


def test_short_tokens_cause_no_storm(
    agent: Agent, make: Make, session: ks_session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """keystoneauth asks again below 120 s, which a 60 s token always is: every call would ask the broker."""
    agent.on_tokens(token(seconds=60))
    plugin = make()
    for _ in range(20):
        plugin.get_token(session)
    assert len(agent.sent()) == 1
    # … but once half of it is gone.
    assert plugin.auth_ref is not None
    data: Any = plugin.auth_ref._data
    later = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=25)
    data["token"]["expires_at"] = later.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    for _ in range(5):
        plugin.get_token(session)
    assert len(agent.sent()) == 2
    # A long one is renewed when keystoneauth says so.
    agent.on_tokens(token(seconds=3600))
    assert plugin.invalidate()
    plugin.get_token(session)
    assert plugin.MIN_TOKEN_LIFE_SECONDS == 120


def test_expired_when_it_arrives(agent: Agent, make: Make, session: ks_session.Session) -> None:
    agent.on_tokens(token(seconds=-5), token("two"))
    plugin = make()
    plugin.get_token(session)
    assert plugin.get_token(session) == "two"


@pytest.mark.parametrize("value", [False, "false", "no"])
def test_reauthenticate_forbidden(
    agent: Agent, make: Make, session: ks_session.Session, value: object
) -> None:
    agent.on_tokens(token(seconds=-5), token("two"))
    plugin = make(reauthenticate=value)
    assert plugin.get_token(session) == plugin.get_token(session) == SECRET


def test_threads_ask_once(agent: Agent, make: Make, session: ks_session.Session) -> None:
    agent.on_tokens(token())
    plugin = make()
    tokens: list[str | None] = []
    threads = [threading.Thread(target=lambda: tokens.append(plugin.get_token(session))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokens == [SECRET] * 16
    assert len(agent.sent()) == 1


def test_threads_that_invalidate(agent: Agent, make: Make, session: ks_session.Session) -> None:
    """keystoneauth's own get_access can return None here."""
    agent.on_tokens(token())
    plugin = make()
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(25):
                assert plugin.get_token(session) == SECRET
                plugin.invalidate()
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_what_went_wrong_is_one_line(agent: Agent, make: Make, session: ks_session.Session) -> None:
    agent.on_tokens(
        problem(
            403,
            "scope-refused",
            "Keystone does not let alice\nuse project demo\x1b[31m",
            cloud="demo",
            remedy="ksb projects demo",
            request_id="req-1",
        )
    )
    with pytest.raises(exceptions.AuthorizationFailure) as caught:
        make().get_token(session)
    expected = (
        "demo: Keystone does not let alice use project demo [31m [req-1] (remedy: run: ksb projects demo)"
    )
    assert str(caught.value) == expected
    error = caught.value
    assert isinstance(error, BrokerError)
    assert (error.code, error.request_id) == ("scope-refused", "req-1")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copy), copy.code, copy.remedy) == (str(error), error.code, error.remedy)


def test_keystones_own_status_is_kept(agent: Agent, make: Make, session: ks_session.Session) -> None:
    more = {"retry_after": 30, "remedy": "try again in 30 s"}
    agent.on_tokens(problem(429, "keystone-error", "Keystone answered 429", cloud="demo", **more))
    with pytest.raises(BrokerError) as caught:
        make(cloud="demo").get_token(session)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value)), caught.value.named("other")):  # noqa: S301
        assert (error.http_status, error.retry_after) == (429, 30)
        assert str(error) == "demo: Keystone answered 429 (remedy: try again in 30 s)"
    agent.on_tokens(problem(403, "scope-refused", "no role"))
    with pytest.raises(BrokerError) as caught:
        make(cloud="demo").get_token(session)
    assert (caught.value.http_status, caught.value.retry_after) == (None, None)


def test_a_remedy_that_is_no_command() -> None:
    assert (
        str(BrokerError("it broke", cloud="c", remedy="ask the operator"))
        == "c: it broke (remedy: ask the operator)"
    )


def test_answers_nobody_understands(agent: Agent, make: Make, session: ks_session.Session) -> None:
    for answer in (
        (200, {"token": SECRET}),
        (200, None),
        (200, [SECRET]),
        (202, {"sign_in": {"id": "../x"}}),
    ):
        agent.on_tokens(answer)
        with pytest.raises(BrokerError, match="not one that this plugin understands") as caught:
            make().get_token(session)
        assert SECRET not in repr(caught.value)
    agent.on_tokens((500, {"message": "boom"}))
    with pytest.raises(BrokerError, match="status 500"):
        make().get_token(session)


def test_no_secret_is_logged(
    agent: Agent, make: Make, session: ks_session.Session, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def assuming(_request: Request) -> tuple[int, Any]:
        status, body = token()
        return status, {**body, "assumed": "project demo is in your own domain lab"}

    agent.on_tokens(assuming)
    plugin = make()
    plugin.get_token(session)
    plugin.invalidate()
    plugin.get_token(session)
    assert "project demo is in your own domain lab" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in repr(plugin)
