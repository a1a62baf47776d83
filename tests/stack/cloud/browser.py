"""What browser.mjs needs: puppeteer-core, trust in the authority, alice's passkey, a settings file."""

import hashlib
import json
import shutil
from pathlib import Path

from .keycloak import PASSKEY
from .layout import CA, CACHE, FRONTS, IDP, LOG, SECRETS, SETTINGS, SOURCE, STATE, front_url
from .running import StackError, command, write

HOME = STATE / "browser-home"  # copied to be $HOME of each browser: Chromium reads its authorities there
MODULES = CACHE / "node"
SCRIPT = SOURCE / "browser"


def node_modules() -> Path:
    lock = (SOURCE / "package-lock.json").read_bytes()
    return MODULES / hashlib.sha256(lock).hexdigest()[:10] / "node_modules"


def install() -> None:
    """puppeteer-core from npm, outside the repository."""
    home = node_modules().parent
    done = home / "complete"
    if done.exists():
        return
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, home / name)
    command(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], log="npm", cwd=home)
    done.touch()


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


def register_passkey() -> None:
    """Alice's first sign-in: Keycloak asks her to register a passkey, and a virtual one is kept for later."""
    if PASSKEY.exists():
        return
    log = LOG / "register.log"
    url = f"{front_url(FRONTS[0])}/auth/OS-FEDERATION/websso/openid?origin=http://localhost:9990/auth/websso/"
    log.unlink(missing_ok=True)
    try:
        command(["node", SOURCE / "register.mjs", url, LOG / "register.png"], log="register")
    except StackError as error:
        raise StackError(
            f"alice could not register her passkey (`stack clean` starts over)\n{error}"
        ) from None
