"""PostgreSQL for Keystone: a cluster of the stack's own, on a socket in its state directory.

Not SQLite: that has one writer at a time, and thirty-two clients at once get 500 ("database is locked").
"""

import os
from pathlib import Path

from . import processes
from .layout import STATE
from .running import StackError, command, wait_for

NAME = "postgres"
HOME = STATE / "postgres"
DATA = HOME / "data"
URL = f"postgresql+psycopg2://keystone@/postgres?host={HOME}"

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": HOME,
    # Nobody mourns this database after a power cut.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_wal_size": "128MB",
    "max_connections": "40",
    "jit": "off",
}


def start() -> None:
    """Makes the cluster if there is none, starts it and waits until it answers."""
    HOME.mkdir(parents=True, exist_ok=True)
    if not DATA.exists():
        # Whoever reaches the socket may come in: the state directory lets in nobody but its owner.
        command([*_tool("initdb"), "-D", DATA, "-U", "keystone", "--auth=trust", "--no-sync",
                 "--locale=C", "--encoding=UTF8"], log=NAME, cwd=HOME)  # fmt: skip
    if processes.running(NAME) is None:
        (DATA / "postmaster.pid").unlink(missing_ok=True)
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        processes.start(NAME, [*_tool("postgres"), "-D", DATA, *settings], HOME, [])
    wait_for(NAME, _answers)


def _tool(name: str) -> list[str | Path]:
    """The command for one of its programs, which Debian keeps beside the PATH.

    It refuses root. Then it runs as the user of Debian's package, who may enter root's folders all the same.
    """
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise StackError("no PostgreSQL: tests/stack/install.sh installs it")
    if os.geteuid() != 0:
        return [found[-1]]
    return ["setpriv", f"--reuid={NAME}", f"--regid={NAME}", "--clear-groups",
            "--inh-caps=+dac_override", "--ambient-caps=+dac_override", found[-1]]  # fmt: skip


def _answers() -> bool:
    processes.must_run(NAME)
    # It writes this line when it takes connections.
    return (DATA / "postmaster.pid").read_text().splitlines()[-1:] == ["ready   "]
