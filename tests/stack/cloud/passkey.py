"""Alice's passkey: a key pair made here, one half for the browser's authenticator, the other for Keycloak."""

import base64
import json
import secrets
import subprocess
import time
from typing import Any

from .layout import PASSKEY
from .running import Json, StackError, write

# "None" attestation: an authenticator that does not say which one it is.
AAGUID = "00000000-0000-0000-0000-000000000000"


def credential(host: str) -> Json:
    """What Keycloak would keep of alice's passkey if she had registered it at `host`."""
    known = _passkey(host)
    data = {
        "aaguid": AAGUID,
        "credentialId": known["credentialId"],
        "counter": 0,
        "credentialPublicKey": _cose(base64.b64decode(known["privateKey"])),
        "attestationStatementFormat": "none",
        "transports": ["internal"],
    }
    return {
        "type": "webauthn",
        "userLabel": "passkey",
        "secretData": "{}",
        "credentialData": json.dumps(data),
    }


def _passkey(host: str) -> dict[str, Any]:
    """As CDP's `WebAuthn.addCredential` takes it."""
    if not PASSKEY.exists():
        key = _openssl(b"", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        key = _openssl(key, "pkcs8", "-topk8", "-nocrypt", "-outform", "DER")
        made = {
            "credentialId": base64.b64encode(secrets.token_bytes(32)).decode(),
            "isResidentCredential": False,
            "rpId": host,
            "privateKey": base64.b64encode(key).decode(),
            "signCount": 1,
        }
        passkey = {"since": int(time.time() * 1000), "credential": made}
        write(PASSKEY, json.dumps(passkey), mode=0o600)
    found: dict[str, Any] = json.loads(PASSKEY.read_text())["credential"]
    return found


def _cose(private_key: bytes) -> str:
    """The public half as a COSE key (RFC 9053, 7.1.1): EC2, ES256, P-256, x, y; base64url."""
    public = _openssl(private_key, "pkey", "-inform", "DER", "-pubout", "-outform", "DER")
    x, y = public[-64:-32], public[-32:]
    cbor = bytes.fromhex("a5 0102 0326 2001 215820") + x + bytes.fromhex("225820") + y
    return base64.urlsafe_b64encode(cbor).decode().rstrip("=")


def _openssl(given: bytes, *arguments: str) -> bytes:
    done = subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=False)
    if done.returncode != 0:
        raise StackError(f"openssl {arguments[0]}: {done.stderr.decode(errors='replace')}")
    return done.stdout
