"""The agent's API: HTTP/1.1 and JSON on a unix socket of our own user."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import logging
import os
import re
import socket
import stat
import struct
import sys
from typing import Any, BinaryIO, NamedTuple

from keystoneauth_broker import __version__
from keystoneauth_broker.errors import BrokerError

_LOG = logging.getLogger(__name__)

#: Seconds for the agent to accept a connection.
_CONNECT = 10
#: Seconds for an answer: the agent may be asking a slow Keystone meanwhile.
ANSWER = 120
#: How often an agent may make room for a fresh one while it is asked.
_TRIES = 5
#: Seconds for `ksb agent start` and `ksb clouds show`.
_COMMAND = 60

_UCRED = struct.Struct("3i")

#: What to do where there is no `ksb`.
INSTALL = (
    "install ksb as the README of keystone-broker says; "
    "KSB names a program elsewhere, KSB_SOCK the socket of an agent elsewhere"
)


class AgentGone(Exception):  # noqa: N818
    """Nobody answers at the socket (any more): an agent may have to be started."""


class Reply(NamedTuple):
    """An answer of the agent."""

    status: int
    body: Any


def socket_path() -> str:
    """Where the agent listens, by the rules that `ksb` follows (docs/api.md)."""
    if path := os.environ.get("KSB_SOCK"):
        return os.path.abspath(path)
    first, *fallbacks = _directories()
    path = os.path.join(first, "broker.sock")
    for fallback in fallbacks:
        elsewhere = os.path.join(fallback, "broker.sock")
        if _is_of_this_home(fallback) and not _is_served(path) and _is_served(elsewhere):
            return elsewhere
    return path


def _directories() -> list[str]:
    """Where an agent may listen, the best first."""
    usual = f"/run/user/{os.geteuid()}"
    runtime = dict.fromkeys((os.environ.get("XDG_RUNTIME_DIR", ""), usual))
    directories = [os.path.join(each, "keystone-broker") for each in runtime if _is_our_directory(each)]
    return [*directories, _shared_directory()]


def _shared_directory() -> str:
    return f"/tmp/keystone-broker-{os.geteuid()}"  # noqa: S108 (checked before it is used)


def _is_our_directory(path: str) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return os.path.isabs(path) and stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _is_of_this_home(directory: str) -> bool:
    """Whether the agent there keeps its state where ours does; that of another home is not ours."""
    if directory == _shared_directory() and _flaw_of_shared():
        return False
    try:
        with open(os.path.join(directory, "broker.lock"), encoding="utf-8", errors="surrogateescape") as lock:
            lines = lock.read().splitlines()
    except OSError:
        return False
    return len(lines) > 1 and os.path.normpath(lines[1]) == os.path.normpath(_state_directory())


def _state_directory() -> str:
    """Where the agent keeps what outlives it; without a usable home a directory that is always the same."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(home, ".local/state") if (home := _home()) else ""
    state = os.path.join(state, "keystone-broker")
    return state if os.path.isabs(state) and _can_be_written(state) else f"{_shared_directory()}/state"


def _home() -> str | None:
    """A home of the user's own. Of an empty `HOME`, as of none, the system is asked."""
    import pwd

    home = os.environ.get("HOME") or ""
    if not home:
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return home if os.path.isabs(home) and home != "/" else None


def _can_be_written(directory: str) -> bool:
    """Whether it is a directory that may be written, or could be made."""
    while True:
        try:
            found = os.stat(directory)
        except FileNotFoundError:
            directory = os.path.dirname(directory)
            continue
        except OSError:
            return False
        is_another_users = os.geteuid() == 0 and found.st_uid != 0
        may_write = os.access(
            directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
        )
        return stat.S_ISDIR(found.st_mode) and not is_another_users and may_write


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        return sock.connect_ex(path) in (0, errno.EAGAIN)


def _flaw_of_shared() -> str | None:
    """Why `/tmp/keystone-broker-UID` must not be used: another user may have made that name first."""
    directory = _shared_directory()
    try:
        found = os.lstat(directory)
        above = os.stat(os.path.dirname(directory))
        root = os.stat("/").st_uid  # in a user namespace root's files may show as another user's
    except OSError as error:
        return None if error.errno == errno.ENOENT else str(error.strerror)
    if found.st_uid != os.geteuid():
        return f"it belongs to user id {found.st_uid}"
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    if found.st_mode & 0o022:
        return "other users may change it"
    if above.st_uid not in (0, root, os.geteuid()) or (
        above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX
    ):
        return "other users may replace it, as /tmp is not yours alone"
    return None


def _remedy_for_file_of(uid: int) -> str:
    """What helps where something is another user's: nothing of theirs is taken or changed."""
    if os.geteuid() == 0 and uid != 0:
        return "run this without sudo, or with HOME, XDG_* and KSB_SOCK of root's own"
    return "set XDG_RUNTIME_DIR or KSB_SOCK to what is yours, or unset them"


def find_ksb() -> str | None:
    """The program `ksb`, looked for where people and package managers put it."""
    import shutil

    if named := os.environ.get("KSB"):
        return shutil.which(os.path.expanduser(named))
    beside = os.path.dirname(sys.executable or "")
    home = _home()
    # Never relative ones: the current directory may be anybody's.
    places = [beside, *(os.path.join(home, below) for below in (".cargo/bin", ".local/bin") if home)]
    return shutil.which("ksb") or shutil.which("ksb", path=os.pathsep.join(filter(None, places)))


def ensure() -> None:
    """Start an agent unless one runs: the one place that does it is `ksb` itself."""
    try:
        run_ksb("agent", "start")
    except BrokerError as error:
        detail = f"no agent answers at {socket_path()}: {error.detail}"
        raise BrokerError(detail, code="agent-unavailable", remedy=error.remedy) from None


def run_ksb(*arguments: str) -> str:
    """Run `ksb` to its end; its stdout. Nothing of it reaches our own stdout or terminal."""
    import subprocess

    program = find_ksb()
    if program is None:
        missing = f"KSB={os.environ['KSB']}" if os.environ.get("KSB") else "the program ksb"
        raise BrokerError(f"{missing} is not there", code="agent-unavailable", remedy=INSTALL)
    words = " ".join(("ksb", *arguments))
    # Files, not pipes: an agent that inherits them must not keep us waiting. In memory: they hold passwords.
    # A session of its own: a Ctrl-C is for us.
    with _in_memory() as out, _in_memory() as err:
        try:
            status = subprocess.run(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                timeout=_COMMAND,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            why = f"`{words}` did not end within {_COMMAND} s"
        except OSError as error:
            why = f"{program}: {error.strerror}"
        else:
            if status == 0:
                _pass_on(err)
                out.seek(0)
                return out.read().decode(errors="replace")
            err.seek(0)
            said = [line for line in err.read(4000).decode(errors="replace").splitlines() if line.strip()]
            why = "; ".join(said).removeprefix("ksb: ") or f"`{words}` ended with status {status}"
    # `ksb: demo: what failed. Try: what helps`, as ksb says it.
    detail, _, remedy = why.partition(". Try: ")
    raise BrokerError(detail, code="agent-unavailable", remedy=remedy or words)


def _pass_on(err: BinaryIO) -> None:
    """Tell the user what `ksb` said beside its work."""
    err.seek(0)
    for line in err.read(4000).decode(errors="replace").splitlines():
        _LOG.warning("%s", line.removeprefix("ksb: "))


def _in_memory() -> BinaryIO:
    return open(os.memfd_create("ksb"), "w+b")


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket that belongs to us at both ends."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self._check_file()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A non-blocking connect fails at once when the agent's backlog is full; this one waits.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _CONNECT, 0))
            try:
                sock.connect(self._path)
            except OSError as error:
                raise self._failed(error) from None
            self._check_peer(sock)
            sock.settimeout(self.timeout)
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    def _check_file(self) -> None:
        directory = os.path.dirname(self._path)
        if directory == _shared_directory() and (flaw := _flaw_of_shared()):
            raise BrokerError(
                f"{directory} is not safe to use: {flaw}",
                code="agent-unavailable",
                remedy="set XDG_RUNTIME_DIR to a private directory of yours, or KSB_SOCK to a socket in one",
            )
        try:
            found = os.lstat(self._path)
            if stat.S_ISLNK(found.st_mode):
                self._check_owner(found.st_uid)
                found = os.stat(self._path)
        except OSError as error:
            raise self._failed(error) from None
        if not stat.S_ISSOCK(found.st_mode):
            raise BrokerError(f"{self._path} is not a socket", code="agent-unavailable")
        self._check_owner(found.st_uid)

    def _check_peer(self, sock: socket.socket) -> None:
        _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        self._check_owner(uid)

    def _check_owner(self, uid: int) -> None:
        if uid != os.geteuid():
            raise BrokerError(
                f"{self._path} belongs to user id {uid}, not to you ({os.geteuid()}): nothing was sent to it",
                code="foreign-peer",
                remedy=_remedy_for_file_of(uid),
            )

    def _failed(self, error: OSError) -> Exception:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.ECONNRESET):
            return AgentGone(f"{self._path}: {error.strerror}")
        return BrokerError(
            f"cannot connect to the agent at {self._path}: {error.strerror}", code="agent-unavailable"
        )


def call(
    method: str, target: str, body: object = None, *, timeout: float = ANSWER, waiter: str | None = None
) -> Reply:
    """One request on a connection of its own, so that forks and threads need no care.

    A `waiter` is a caller at a terminal, by an id of its own (docs/api.md).

    Raises `AgentGone` when nobody answers, `BrokerError` when what answers is no agent of ours.
    """
    asked_to_leave = False
    for _ in range(_TRIES):
        reply, version = _call_once(method, target, body, timeout, waiter)
        problem = reply.body if isinstance(reply.body, dict) else {}
        if reply.status == 503 and problem.get("code") == "agent-leaving":
            continue
        # What an older agent refuses, the program that was installed over its own may know.
        if reply.status < 400 or asked_to_leave or not _is_older(version) or not _made_room(timeout):
            break
        asked_to_leave = True
    return reply


def _made_room(timeout: float) -> bool:
    try:
        reply, _ = _call_once("POST", "/v1/handover", None, timeout)
    except (AgentGone, BrokerError):
        return False
    return reply.status == 204


def _is_older(version: str) -> bool:
    """Whether an agent of this version came before us."""
    theirs, ours = (re.findall(r"\d+", each)[:3] for each in (version, __version__))
    return bool(theirs) and list(map(int, theirs)) < list(map(int, ours))


def _call_once(
    method: str, target: str, body: object, timeout: float, waiter: str | None = None
) -> tuple[Reply, str]:
    """The answer, and the version of the agent that gave it."""
    path = socket_path()
    headers = {"Accept": "application/json", "User-Agent": f"keystoneauth-broker/{__version__}"}
    if waiter is not None:
        headers["Ksb-Waiter"] = waiter
    data = None
    if body is not None:
        data = json.dumps(body)
        headers["Content-Type"] = "application/json"
    connection = _Connection(path, timeout)
    try:
        # An agent that answers before it has read everything may close its end while we still send.
        with contextlib.suppress(BrokenPipeError):
            connection.request(method, target, body=data, headers=headers)
        response = connection.getresponse()
        content = response.read()
    except TimeoutError:
        failure: Exception = BrokerError(
            f"the agent at {path} did not answer within {timeout:.0f} s",
            code="agent-unavailable",
            remedy="ksb agent stop, and once more",
        )
    except (ConnectionError, http.client.HTTPException) as error:
        failure = AgentGone(f"{path}: {type(error).__name__}")
    else:
        version = response.headers.get("Ksb-Version", "unknown")
        return Reply(response.status, _parsed(content, path, version)), version
    finally:
        connection.close()
    raise failure  # here, where its context holds nothing of what was read


def _parsed(content: bytes, path: str, version: str) -> Any:
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError:
        pass  # raised below, where the exception has no token in its context
    raise BrokerError(
        f"what answers at {path} is not an agent this plugin understands (version {version})",
        code="agent-unavailable",
        remedy="ksb agent stop, so that the installed version starts",
    )
