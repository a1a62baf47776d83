"""Asking for a token, and waiting with a person for the sign-in that it may need."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from keystoneauth_broker import agent, browser, unattended
from keystoneauth_broker.environment import (
    HERE,
    WEB_TERMINAL,
    WINDOWS,
    Prompting,
    advice,
    can_be_opened,
    is_remote,
    this_machine,
)
from keystoneauth_broker.errors import BrokerError, from_problem, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger(__name__)

#: How often a sign-in may turn out not to be enough before we give up.
_ROUNDS = 3
#: How often an agent that is gone is started (again) for one token.
_STARTS = 2
#: Seconds that a long poll lasts at the agent.
_POLL = 20
#: Seconds that a process without a terminal waits for a person.
_PATIENCE = 10

_SIGN_INS = "/v1/sign-ins"

_said: set[str] = set()
_said_lock = threading.Lock()


def say(cloud: str, text: str, *, once: str | None = None) -> None:
    """A line on stderr, never on stdout; with `once`, only the first time in this process."""
    if once is not None:
        with _said_lock:
            if once in _said:
                return
            _said.add(once)
    try:
        print(f"ksb: {one_line(cloud)}: {one_line(text)}", file=sys.stderr, flush=True)  # noqa: T201
    except (AttributeError, OSError, ValueError):  # stderr is closed, or there is none
        pass


class TokenRequest:
    """One request for a token, until it is there or cannot be had."""

    def __init__(
        self,
        request: dict[str, Any],
        label: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._prompting = Prompting()
        self._request = {**request, "prompt": self._prompting.allowed}
        # Without a prompt no sign-in begins, and nothing of the browser need be found out.
        if self._prompting.allowed and is_remote(self._prompting.location):
            self._request["remote"] = True
        self._label = label
        self._clock = clock
        self._sleep = sleep
        self._tried_to_open: set[str] = set()
        self._waiting_since: float | None = None
        self._asker: str | None = None
        self._waiter = os.urandom(16).hex() if self._prompting.terminal else None

    def answer(self) -> dict[str, Any]:
        """The broker's token reply. Starts the agent where none answers."""
        for _ in range(_STARTS):
            try:
                return self._ask()
            except agent.AgentGone as gone:
                _LOG.debug("no agent: %s", gone)
            try:
                agent.ensure()
            except BrokerError as error:
                raise error.named(self._label) from None
        try:
            return self._ask()
        except agent.AgentGone as gone:
            lost = str(gone)
        raise BrokerError(
            f"the agent is started, but goes away before it answers ({lost})",
            cloud=self._label,
            code="agent-unavailable",
            remedy="ksb agent run, to see why",
        )

    def _ask(self) -> dict[str, Any]:
        for _ in range(_ROUNDS):
            status, body = self._call("POST", "/v1/tokens", self._request)
            if status == 200:
                return self._checked(body)
            if status != 202:
                problem = from_problem(body, cloud=self._label, status=status)
                if problem.code != "bearer-needed":
                    raise problem
                cloud = unattended.fetch(self._request["cloud"], self._label)
                self._request = {**self._request, "cloud": cloud}
                continue
            sign_in = self._sign_in(body)
            try:
                self._wait(sign_in)
            except KeyboardInterrupt:
                self._leave(sign_in)
                raise
        raise BrokerError(
            f"{_ROUNDS} sign-ins were not enough: the broker asks for another one",
            cloud=self._label,
            code="sign-in-needed",
            remedy=self._login,
        )

    def _call(self, method: str, target: str, body: object = None, *, wait: int = 0) -> agent.Reply:
        try:
            return agent.call(method, target, body, timeout=wait + agent.ANSWER, waiter=self._waiter)
        except BrokerError as error:
            raise error.named(self._label) from None

    def _leave(self, sign_in: dict[str, Any]) -> None:
        """The user gave up: the sign-in ends, unless another caller at a terminal waits for it."""
        if self._waiter is None:
            return
        with contextlib.suppress(agent.AgentGone, BrokerError):
            self._call("POST", f"{_SIGN_INS}/{sign_in['id']}/leave", {})

    def _wait(self, sign_in: dict[str, Any]) -> None:
        """Until the sign-in is done."""
        if self._waiting_since is None:
            self._waiting_since = self._clock()
        while True:
            self._show(sign_in)
            state = sign_in.get("state")
            if state == "done":
                return
            if state == "failed":
                raise from_problem(sign_in.get("problem"), cloud=self._label, status=202)
            if state == "asking" and (sign_in.get("opener") is True or self._asker == sign_in["id"]):
                self._ask_person(sign_in)
            wait = min(_POLL, math.ceil(self._patience_left(sign_in)))
            seen = sign_in.get("revision", 0)
            asked = self._clock()
            status, body = self._call(
                "GET", f"{_SIGN_INS}/{sign_in['id']}?wait={wait}&seen={seen}", wait=wait
            )
            if status == 404:
                return  # another agent by now: ask for the token again
            if status != 200:
                raise from_problem(body, cloud=self._label, status=status)
            sign_in = self._sign_in(body)
            if sign_in.get("revision", 0) == seen and self._clock() - asked < 1:
                self._sleep(0.5)  # an agent that does not hold its polls must not spin us

    def _ask_person(self, sign_in: dict[str, Any]) -> None:
        """Ask on the terminal for what the sign-in waits for, until the broker takes it or has had enough."""
        path, asks = f"{_SIGN_INS}/{sign_in['id']}", sign_in.get("asks") or ()
        if not self._prompting.terminal:
            self._call("DELETE", path)
            what = ", ".join(str(ask.get("text")) for ask in asks)
            raise BrokerError(
                f"{what} must be typed, and this process has no terminal to ask on",
                cloud=self._label,
                code="sign-in-needed",
                remedy=self._login,
            )
        import getpass

        self._asker = sign_in["id"]
        self._call("POST", f"{path}/opened", {})
        while True:
            try:
                typed = {
                    ask["factor"]: getpass.getpass(f"ksb: {one_line(self._label)}: {one_line(ask['text'])}: ")
                    for ask in asks
                }
            except (KeyboardInterrupt, EOFError):
                # Unlike a browser, a terminal that is gone answers no more.
                self._call("DELETE", path)
                raise
            status, body = self._call("POST", f"{path}/factors", {"factors": typed})
            if status in (204, 404):
                return  # what came of it is said with the sign-in
            problem = from_problem(body, cloud=self._label, status=status)
            if problem.code not in ("factor-refused", "invalid-request"):
                raise problem
            say(self._label, problem.detail)

    def _patience_left(self, sign_in: dict[str, Any]) -> float:
        if self._prompting.patient:
            return _POLL
        assert self._waiting_since is not None  # noqa: S101  # nosec
        left = self._waiting_since + _PATIENCE - self._clock()
        if left > 0:
            return left
        raise BrokerError(
            f"a person has to sign in at {sign_in.get('url')} and this process has no terminal to wait at; "
            "the sign-in goes on",
            cloud=self._label,
            code="sign-in-needed",
            remedy=self._login,
        )

    def _show(self, sign_in: dict[str, Any]) -> None:
        sign_in_id, url = sign_in["id"], sign_in.get("url")
        if sign_in.get("state") not in ("done", "failed") and isinstance(url, str):
            private = " (in a private window)" if sign_in.get("private_window") else ""
            tunnel = sign_in.get("tunnel")
            if isinstance(tunnel, str):
                machine, guess = this_machine()
                say(
                    self._label,
                    f"run this on the computer in front of you, and let it run ({guess} is a guess: "
                    f"write what you connect to this one by): {tunnel} {machine}",
                    once=f"{sign_in_id} {tunnel}",
                )
                say(
                    self._label,
                    f"then open this there, and sign in{private}: {url}",
                    once=f"{sign_in_id} {url}",
                )
            else:
                say(self._label, f"sign in{private}: {url}", once=f"{sign_in_id} {url}")
            say(
                self._label,
                "waiting for it; press Ctrl-C to give up"
                if self._prompting.patient
                else f"waiting {_PATIENCE} s for it, there is no terminal",
                once=f"{sign_in_id} waiting",
            )
            command = sign_in.get("browser")
            location = HERE if command and self._prompting.browser else self._prompting.location
            opens = sign_in.get("opener") is True and self._prompting.allowed
            text = advice(location, is_local="user_code" not in sign_in)
            if text and (opens or (isinstance(tunnel, str) and location == WEB_TERMINAL)):
                say(self._label, text, once=f"{sign_in_id} {text}")
            if opens and can_be_opened(location):
                self._open(sign_in_id, url, command, private=bool(private))
        for number, notice in enumerate(sign_in.get("notices") or ()):
            say(self._label, notice, once=f"{sign_in_id} {number} {notice}")

    def _open(self, sign_in_id: str, url: str, command: str | None, *, private: bool) -> None:
        """Open the browser beside us, and tell the broker; unsaid, it gives the task to the next caller."""
        if sign_in_id in self._tried_to_open:
            return
        self._tried_to_open.add(sign_in_id)
        label = self._label

        def opened() -> None:
            try:
                agent.call("POST", f"{_SIGN_INS}/{sign_in_id}/opened", {})
            except (agent.AgentGone, BrokerError) as error:
                _LOG.debug("the broker was not told that the browser is open: %s", error)

        def failed(why: str) -> None:
            say(
                label,
                f"no browser opened ({why}): open the address above yourself",
                once=f"{sign_in_id} failed",
            )

        windows = self._prompting.location == WINDOWS
        browser.start(url, command, private=private, windows=windows, opened=opened, failed=failed)

    def _sign_in(self, body: Any) -> dict[str, Any]:
        sign_in = body.get("sign_in") if isinstance(body, dict) else None
        if isinstance(sign_in, dict) and isinstance(sign_in.get("id"), str) and sign_in["id"].isalnum():
            return sign_in
        raise self._not_understood()

    def _checked(self, body: Any) -> dict[str, Any]:
        reply = body if isinstance(body, dict) else {}
        if isinstance(reply.get("token_id"), str) and isinstance(reply.get("body"), dict):
            if isinstance(reply.get("assumed"), str):
                _LOG.info("%s: %s", self._label, one_line(reply["assumed"]))
            return reply
        raise self._not_understood()

    def _not_understood(self) -> BrokerError:
        return BrokerError(
            "the agent's answer is not one that this plugin understands",
            cloud=self._label,
            code="agent-unavailable",
            remedy="ksb agent stop, so that the installed version starts",
        )

    @property
    def _login(self) -> str:
        import shlex

        cloud = self._request["cloud"]
        words = ["ksb", "login", cloud.get("name") or "CLOUD"]
        if cloud.get("account"):
            words += ["--account", cloud["account"]]
        return shlex.join(words)
