"""Daemons of the stack: started once, known by pid and start time, ended with all their children."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .layout import LOG, RUN
from .running import StackError, tail

KEEP_LOG_BYTES = 20_000_000


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on, or None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields


def _start_time(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields else None


def _recorded(name: str) -> tuple[int, str] | None:
    try:
        record = json.loads((RUN / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    return record["pid"], record["started"]


def running(name: str) -> int | None:
    """The pid of a daemon that we started and that still runs; a pid alone may be another's by now."""
    record = _recorded(name)
    if record and _start_time(record[0]) == record[1]:
        return record[0]
    return None


def start(
    name: str,
    argv: Sequence[str | Path],
    cwd: Path,
    ports: Sequence[int],
    environment: dict[str, str] | None = None,
) -> None:
    """Starts a daemon in a session of its own, with its output in log/NAME.log."""
    _must_be_free(name, ports)
    RUN.mkdir(parents=True, exist_ok=True)
    LOG.mkdir(parents=True, exist_ok=True)
    path = LOG / f"{name}.log"
    if path.exists() and path.stat().st_size > KEEP_LOG_BYTES:
        path.replace(path.with_suffix(".log.old"))
    with path.open("ab") as log:
        child = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    record = {"pid": child.pid, "started": _start_time(child.pid)}
    (RUN / f"{name}.json").write_text(json.dumps(record))
    child.returncode = 0  # it outlives this program: no warning about that


def _must_be_free(name: str, ports: Sequence[int]) -> None:
    """Another cloud's answers must not be taken for our own."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise StackError(
                    f"{name}: another process has port {port} (`ss -ltnp` tells which)"
                ) from None


def must_run(name: str) -> None:
    """Raises with the end of the log when a daemon died instead of becoming ready."""
    if running(name) is None:
        raise StackError(f"{name} ended by itself; the end of its log:\n{tail(LOG / f'{name}.log')}")


def stop(name: str, patience: float = 20) -> bool:
    """Ends a daemon and everything in its session; says whether there was anything to end."""
    record = _recorded(name)
    if record is None:
        return False
    pid, started = record
    # While a session has members its leader's pid is not given to another process: these are ours.
    members = _session(pid, started)
    if running(name):
        _signal([pid], signal.SIGTERM)
        _wait_until_gone(pid, started, patience)
    left = _session(pid, started)
    _signal(left, signal.SIGTERM)
    deadline = time.monotonic() + 3
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = _session(pid, started)
    _signal(left, signal.SIGKILL)
    (RUN / f"{name}.json").unlink(missing_ok=True)
    return bool(members)


def _session(pid: int, started: str) -> list[int]:
    """Processes of the session that a daemon leads, or led before it ended."""
    found = []
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields and int(fields[3]) == pid and int(fields[19]) >= int(started):
            found.append(int(entry.name))
    return found


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _wait_until_gone(pid: int, started: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while _start_time(pid) == started and time.monotonic() < deadline:
        time.sleep(0.05)
