"""The stack's own certificate authority and its one certificate, by openssl."""

from pathlib import Path

from .layout import CA, KEYSTONE_HOST, TLS
from .running import command, write

LEAF = TLS / "server.pem"
KEY = TLS / "server.key"
HOSTS = (KEYSTONE_HOST, "idp.localhost")
NAMES = f"DNS:{KEYSTONE_HOST},DNS:idp.localhost,DNS:localhost,IP:127.0.0.1"

CA_NAME = "/CN=keystone-broker test CA"
LEAF_EXTENSIONS = f"""\
subjectAltName = {NAMES}
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
"""


def make() -> None:
    """Makes the authority and the certificate when they are not there."""
    if LEAF.exists():
        return
    TLS.mkdir(parents=True, exist_ok=True)
    TLS.chmod(0o700)
    ca_key, signing = TLS / "ca.key", TLS / "server.csr"
    extensions = TLS / "server.ext"
    write(extensions, LEAF_EXTENSIONS)
    _openssl("req", "-x509", *_new_key(ca_key), "-out", CA, "-days", "3650", "-subj", CA_NAME,
             "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    _openssl("req", *_new_key(KEY), "-out", signing, "-subj", f"/CN={KEYSTONE_HOST}")
    new = LEAF.with_suffix(".new")
    # 825 days is the most that browsers take from an authority of one's own.
    _openssl("x509", "-req", "-in", signing, "-CA", CA, "-CAkey", ca_key, "-CAcreateserial", "-days", "825",
             "-extfile", extensions, "-out", new)  # fmt: skip
    new.replace(LEAF)


def _new_key(path: Path) -> list[str | Path]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path]


def _openssl(*arguments: str | Path) -> None:
    command(["openssl", *arguments], log="openssl")
