"""Python environments from the lock files, made with uv: one per name, shared by all checkouts."""

import hashlib
import shutil
from pathlib import Path

from . import releases
from .layout import CACHE, DOWNLOADS, PYTHON, SOURCE
from .running import StackError, command, only_one

UV_VERSION = "0.13.9"
NAMES = ("keystone", "swift", "client", "plain", "ansible", "oldest", "compare", "horizon")

HOME = CACHE / "venvs"
UV = DOWNLOADS / f"uv-{UV_VERSION}" / "bin" / "uv"
# Not in the user's own: what the stack brought goes with its cache.
ENVIRONMENT = {"UV_CACHE_DIR": str(DOWNLOADS / "uv-cache")}


def uv() -> Path:
    """The uv program, from PyPI, in an environment of its own."""
    with only_one("uv"):
        if not UV.exists():
            home = UV.parent.parent
            shutil.rmtree(home, ignore_errors=True)
            command([_python(), "-m", "venv", home], log="venvs")
            command([home / "bin" / "pip", "install", "--quiet", f"uv=={UV_VERSION}"], log="venvs")
    return UV


def wheel(requirement: str) -> Path:
    """The directory with the content of a wheel, `NAME==VERSION`: for programs that come as one."""
    home = wheel_path(requirement)
    with only_one(home.name):
        done = home / "complete"
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)
            _run("pip", "install", "--quiet", "--python", _python(), "--target", home, requirement)
            done.touch()
    return home


def wheel_path(requirement: str) -> Path:
    """Where it lies, unpacked or not."""
    return DOWNLOADS / requirement.replace("==", "-")


def path(name: str) -> Path:
    """Where the environment of this lock file, or of another release, lies, made or not."""
    if name == "keystone" and (other := releases.keystone()):
        name = f"keystone-{other}"
    if release := releases.named(name):
        return HOME / f"{name}-{hashlib.sha256(repr(release).encode()).hexdigest()[:10]}"
    lock = (SOURCE / "locks" / f"{name}.txt").read_bytes()
    return HOME / f"{name}-{hashlib.sha256(lock).hexdigest()[:10]}"


def make(name: str) -> Path:
    """Makes an environment unless it is there; returns its path."""
    if name not in NAMES and not releases.named(name):
        raise StackError(f"no environment {name!r}; there are {', '.join((*NAMES, *releases.names()))}")
    if name == "keystone" and (other := releases.keystone()):
        name = f"keystone-{other}"
    home = path(name)
    done = home / "complete"
    if done.exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    _run("venv", "--quiet", "--seed", "--python", _python(), home)
    install = "pip", "install", "--quiet", "--compile-bytecode", "--python", home / "bin" / "python"
    if release := releases.named(name):
        _run(*install, "--exclude-newer", release.date, *release.requirements)
    else:
        _run(*install, "-r", SOURCE / "locks" / f"{name}.txt")
    done.touch()
    return home


def _run(*arguments: str | Path) -> None:
    command([uv(), *arguments], log="venvs", environment=ENVIRONMENT)


def _python() -> str:
    for candidate in ("/usr/bin/python3", f"python{PYTHON}", "python3"):
        if found := shutil.which(candidate):
            return found
    raise StackError("no Python")
