"""Passwords and keys of the cloud: made once, kept in the state directory for its owner only."""

import base64
import json
import secrets

from .layout import CONFIDENTIAL_CLIENTS, MFA_USERS, SECRETS, USERS
from .running import StackError, write


def existing() -> dict[str, str]:
    """All secrets by name, of a cloud that there is."""
    if not SECRETS.exists():
        raise StackError("there is no cloud yet: `stack up` first")
    known: dict[str, str] = json.loads(SECRETS.read_text())
    return known


def load() -> dict[str, str]:
    """All secrets by name; those that are missing are made."""
    known = existing() if SECRETS.exists() else {}
    names = ["admin", "keycloak_admin", "oidc_client", "oidc_cookie", "ci_client", "totp_tessa", "swift"]
    names += [f"client_{client}" for client in CONFIDENTIAL_CLIENTS]
    names += [f"user_{user}" for user in (*USERS, *MFA_USERS)]
    for name in names:
        known.setdefault(name, secrets.token_urlsafe(18))
    for user in MFA_USERS:
        known.setdefault(f"totp_{user}", base64.b32encode(secrets.token_bytes(20)).decode())
    write(SECRETS, json.dumps(known, indent=1) + "\n", mode=0o600)
    return known
