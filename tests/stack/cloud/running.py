"""Running things: commands, timed phases, the lock against a second `stack`, small HTTP calls."""

import contextlib
import fcntl
import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .layout import CA, CACHE, LOG

T = TypeVar("T")
Json = dict[str, Any]


class StackError(Exception):
    """Something a person has to look at; the text says where."""


class Phases:
    """Prints each phase with its seconds as it ends, and all of them at the end."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.began = time.monotonic()
        self.seconds: list[tuple[str, float]] = []

    def run(self, name: str, work: Callable[[], T]) -> T:
        began = time.monotonic()
        result = work()
        seconds = time.monotonic() - began
        self.seconds.append((name, seconds))
        # Most phases find their work done; naming them would hide the ones that took time.
        if seconds >= 0.5:
            self.say(f"{name} … {seconds:.1f} s")
        return result

    def say(self, line: str) -> None:
        if not self.quiet:
            print(f"stack: {line}", flush=True)

    def table(self) -> None:
        self.say("")
        for name, seconds in sorted(self.seconds, key=lambda entry: -entry[1]):
            if seconds >= 0.05:
                self.say(f"{seconds:7.1f} s  {name}")
        self.say(f"{time.monotonic() - self.began:7.1f} s  in all (phases overlap)")


@contextlib.contextmanager
def only_one(name: str) -> Iterator[None]:
    """Holds the lock that keeps two processes from making the same thing at once."""
    locks = CACHE / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def command(
    argv: Sequence[str | Path],
    *,
    log: str,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> None:
    """Runs a command to its end with its output in a log file, and shows the log's end when it fails."""
    LOG.mkdir(parents=True, exist_ok=True)
    path = LOG / f"{log}.log"
    with path.open("ab") as file:
        done = subprocess.run(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    if done.returncode != 0:
        raise StackError(f"{argv[0]} failed ({done.returncode}); the end of {path}:\n{tail(path)}")


def tail(path: Path, lines: int = 25) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"


def write(path: Path, text: str, mode: int = 0o644) -> bool:
    """Writes a file if its content is another one, whole or not at all; says whether it did."""
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "w") as file:
        file.write(text)
    new.replace(path)
    return True


def request(
    method: str, url: str, body: Json | bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """One HTTP request: status, response headers in lower case, JSON body ({} when there is none)."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    sent = {"Content-Type": "application/json"} if isinstance(body, dict) else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    tls = ssl.create_default_context(cafile=str(CA)) if url.startswith("https:") else None
    call = urllib.request.Request(url, data=data, headers=sent, method=method)
    # Proxies of this machine's environment are for the world outside, not for loopback.
    handlers = [urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=tls)] if tls else [])]
    try:
        answer = urllib.request.build_opener(*handlers).open(call, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        raw = answer.read()
        kind = answer.headers.get("Content-Type", "")
        found = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, found, json.loads(raw) if raw and "json" in kind else {}


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 420) -> None:
    """Waits until `ready` says so; a refused connection counts as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.1)
    raise StackError(f"{what}: not ready after {seconds:.0f} s; logs are in {LOG}")
