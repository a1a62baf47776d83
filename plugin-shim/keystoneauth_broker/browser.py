"""Opening a browser beside a command whose stdout and terminal are not ours to use."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

#: Seconds after which a browser command that has not ended counts as a browser that runs.
_SETTLED = 1

# `webbrowser` runs what BROWSER names in our process group, on our stdout, and waits for it.
# So it gets a process of its own, which a Ctrl-C at our terminal does not reach.
_WEBBROWSER = "import sys, webbrowser; sys.exit(not webbrowser.open(sys.argv[1]))"


def start(
    url: str,
    command: str | None,
    *,
    private: bool,
    windows: bool,
    opened: Callable[[], None],
    failed: Callable[[str], None],
) -> None:
    """Open `url` with `command`, else with Python's `webbrowser`; a daemon thread then says how it went."""
    argv = _argv(url, command, private=private, windows=windows)
    if isinstance(argv, str):
        failed(argv)
        return
    threading.Thread(target=_run, args=(argv, opened, failed), name="ksb-browser", daemon=True).start()


def _argv(url: str, command: str | None, *, private: bool, windows: bool) -> list[str] | str:
    """The command to run, or why there is none."""
    if not url.startswith(("http://", "https://")):
        return "its address is no web page"
    if command:
        import shlex

        try:
            words = shlex.split(command)
        except ValueError as error:
            return f"the browser command cannot be read: {error}"
        if words:
            argv = [word.replace("{url}", url) for word in words]
            return argv if argv != words else [*words, url]
    if private:
        return "no command for a private window is configured"
    if windows:
        # The shell of Windows would take an `&` for its own.
        return ["rundll32.exe", "url.dll,FileProtocolHandler", url]
    if not sys.executable or getattr(sys, "frozen", False):
        return "there is no Python to start it with"
    return [sys.executable, "-I", "-S", "-c", _WEBBROWSER, url]


def _run(argv: list[str], opened: Callable[[], None], failed: Callable[[str], None]) -> None:
    import subprocess

    try:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        failed(f"{argv[0]}: {error.strerror}")
        return
    try:
        status = process.wait(_SETTLED)
    except subprocess.TimeoutExpired:
        status = 0
    if status == 0:
        opened()
    else:
        failed(f"{os.path.basename(argv[0])} ended with status {status}")
    process.wait()
