"""An agent and a Keystone that say what a test tells them to. JSON by hand, nothing of the plugin's."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import os
import socketserver
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Request(NamedTuple):
    method: str
    path: str
    body: Any
    headers: dict[str, str]


#: What a script answers: status and JSON; or None, to hang up.
Answer = tuple[int, Any] | None


def token_body(
    *, seconds: int = 3600, endpoint: str = "http://127.0.0.1:9/v3", padding: int = 0
) -> dict[str, Any]:
    now = dt.datetime.now(dt.timezone.utc).replace(microsecond=0)

    def stamp(moment: dt.datetime) -> str:
        return moment.strftime("%Y-%m-%dT%H:%M:%S.000000Z")

    def service(kind: str, url: str) -> dict[str, Any]:
        return {
            "id": f"s-{kind}",
            "type": kind,
            "name": kind,
            "endpoints": [
                {"id": f"e-{kind}", "interface": "public", "region": "r1", "region_id": "r1", "url": url}
            ],
        }

    catalog = [service("identity", endpoint)]
    catalog += [
        service(f"filler-{n}", f"https://filler-{n}.example.org/" + "x" * 1000) for n in range(padding)
    ]
    return {
        "token": {
            "methods": ["openid", "token"],
            "user": {"id": "u1", "name": "alice", "domain": {"id": "d1", "name": "lab"}},
            "project": {"id": "p1", "name": "demo", "domain": {"id": "d1", "name": "lab"}},
            "roles": [{"id": "r", "name": "member"}],
            "is_domain": False,
            "catalog": catalog,
            "audit_ids": ["a1"],
            "issued_at": stamp(now),
            "expires_at": stamp(now + dt.timedelta(seconds=seconds)),
        }
    }


def token(token_id: str = "gAAAA-secret-one", **how: Any) -> tuple[int, Any]:
    body = token_body(**how)
    return 200, {"token_id": token_id, "expires_at": body["token"]["expires_at"], "body": body}


SIGN_IN_ID = "0123456789abcdef0123456789abcdef"
URL = "http://127.0.0.1:40123/start/f00"


def sign_in(state: str = "waiting", revision: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "sign_in": {
            "id": SIGN_IN_ID,
            "cloud": "demo",
            "state": state,
            "revision": revision,
            "url": URL,
            "opener": False,
            "private_window": False,
            "started_at": "2026-11-22T12:00:00Z",
            "deadline": "2026-11-22T12:05:00Z",
            "notices": [],
            "offers": 0,
            **more,
        }
    }


def problem(status: int, code: str, detail: str, **more: Any) -> tuple[int, Any]:
    return status, {
        "type": f"urn:ksb:problem:{code}",
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    errors: list[BaseException]

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        assert error is not None
        if not isinstance(error, ConnectionError):  # a client may hang up
            self.errors.append(error)


class Agent:
    """Answers `(method, path without query)` from a list per route; the last one is repeated."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.routes: dict[tuple[str, str], list[Answer | Callable[[Request], Answer]]] = {}
        self.opened = threading.Event()
        self.chunked = False
        self.version = "0.1.0"
        self._lock = threading.Lock()
        self._server: _UnixServer | None = None
        self.errors: list[BaseException] = []
        self.on("POST", f"/v1/sign-ins/{SIGN_IN_ID}/opened", self._note_opened)

    def _note_opened(self, request: Request) -> Answer:
        self.opened.set()
        return 204, None

    def on(self, method: str, path: str, *answers: Answer | Callable[[Request], Answer]) -> None:
        self.routes[method, path] = list(answers)

    def on_tokens(self, *answers: Answer | Callable[[Request], Answer]) -> None:
        self.on("POST", "/v1/tokens", *answers)

    def on_poll(self, *answers: Answer | Callable[[Request], Answer]) -> None:
        self.on("GET", f"/v1/sign-ins/{SIGN_IN_ID}", *answers)

    def sent(self, method: str = "POST", path: str = "/v1/tokens") -> list[Any]:
        with self._lock:
            return [r.body for r in self.requests if r.method == method and r.path.partition("?")[0] == path]

    def polls(self) -> list[str]:
        with self._lock:
            return [r.path.partition("?")[2] for r in self.requests if r.method == "GET"]

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            answers = self.routes.get((request.method, request.path.partition("?")[0]))
            if not answers:
                return problem(404, "invalid-request", f"no route {request.method} {request.path}")
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer(request) if callable(answer) else answer

    def start(self) -> None:
        agent = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def address_string(self) -> str:
                return "unix"

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                content = self.rfile.read(length)
                request = Request(
                    self.command, self.path, json.loads(content) if content else None, dict(self.headers)
                )
                answer = agent.answer(request)
                self.close_connection = True
                if answer is None:
                    return
                status, body = answer
                data = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Ksb-Version", agent.version)
                if data:
                    self.send_header(
                        "Content-Type", "application/json" if status < 300 else "application/problem+json"
                    )
                if agent.chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for start in range(0, len(data), 7000):
                        piece = data[start : start + 7000]
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.write(b"0\r\n\r\n")
                else:
                    if status != 204:
                        self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815

        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        self._server = _UnixServer(self.path, Handler)
        self._server.errors = self.errors
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if os.path.exists(self.path):
            os.unlink(self.path)


class Keystone:
    """A service, on TCP: knows which token is good."""

    def __init__(self, good: str) -> None:
        self.good = {good}
        self.tokens_seen: list[str] = []
        keystone = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                given = self.headers.get("X-Auth-Token", "")
                root = f"{keystone.url}/v3"
                status, body = 200, {}  # type: tuple[int, dict[str, Any]]
                if self.path.rstrip("/") == "/v3":
                    links = [{"rel": "self", "href": root}]
                    body = {"version": {"id": "v3.14", "status": "stable", "links": links}}
                elif self.path == "/":
                    version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": root}]}
                    status, body = 300, {"versions": {"values": [version]}}
                else:
                    keystone.tokens_seen.append(given)
                    if given not in keystone.good:
                        status, body = 401, {"error": {"code": 401, "message": "no", "title": "Unauthorized"}}
                    else:
                        domain = {"id": "d1", "domain_id": None, "enabled": True}
                        body = {"projects": [{**domain, "id": "p1", "name": "demo"}], "links": {}}
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Clock:
    """Monotonic time that moves only when told; what sleeps on it moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def until(condition: Callable[[], object], seconds: float = 5) -> None:
    """Real time, for what happens in threads and processes."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        time.sleep(0.01)
