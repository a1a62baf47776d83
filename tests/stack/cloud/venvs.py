"""Python environments from the lock files, made with uv: one per name, shared by all checkouts."""

import hashlib
import shutil
from pathlib import Path

from .layout import CACHE, DOWNLOADS, PYTHON, SOURCE
from .running import StackError, command

UV_VERSION = "0.13.9"
NAMES = ("keystone", "swift", "client", "plain", "ansible", "oldest", "compare", "horizon")

HOME = CACHE / "venvs"
UV = DOWNLOADS / f"uv-{UV_VERSION}" / "bin" / "uv"


def uv() -> Path:
    """The uv program, from PyPI, in an environment of its own."""
    if not UV.exists():
        home = UV.parent.parent
        shutil.rmtree(home, ignore_errors=True)
        command([_python(), "-m", "venv", home], log="venvs")
        command([home / "bin" / "pip", "install", "--quiet", f"uv=={UV_VERSION}"], log="venvs")
    return UV


def path(name: str) -> Path:
    """Where the environment of this lock file lies, made or not."""
    lock = (SOURCE / "locks" / f"{name}.txt").read_bytes()
    return HOME / f"{name}-{hashlib.sha256(lock).hexdigest()[:10]}"


def make(name: str) -> Path:
    """Makes an environment unless it is there; returns its path."""
    if name not in NAMES:
        raise StackError(f"no environment {name!r}; there are {', '.join(NAMES)}")
    home = path(name)
    done = home / "complete"
    if done.exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    tool = uv()
    command([tool, "venv", "--quiet", "--seed", "--python", _python(), home], log="venvs")
    lock = SOURCE / "locks" / f"{name}.txt"
    python = home / "bin" / "python"
    install: list[str | Path] = [
        tool,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "--python",
        python,
        "-r",
        lock,
    ]
    command(install, log="venvs")
    done.touch()
    return home


def _python() -> str:
    for candidate in ("/usr/bin/python3", f"python{PYTHON}", "python3"):
        if found := shutil.which(candidate):
            return found
    raise StackError("no Python")
