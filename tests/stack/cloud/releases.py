"""Other releases of Keystone and of the openstack client, for `make test-releases`.

Each is installed with the newest of everything else that there was on a date, as its users had it.
"""

import os
from typing import NamedTuple


class Release(NamedTuple):
    """What is installed, and on which date's index."""

    requirements: tuple[str, ...]
    date: str


# pkg_resources, which they import, left setuptools with version 81.
_SERVER = ("pyuwsgi", "psycopg2-binary", "setuptools<81")

KEYSTONES = {
    # Zed; its migrations are for SQLAlchemy 1.
    "22": Release(("keystone==22.0.0", "sqlalchemy<2", *_SERVER), "2023-04-01"),
    "25": Release(("keystone==25.0.0", *_SERVER), "2024-09-01"),  # 2024.1
    # 2024.2; pysaml2 wants a pyOpenSSL that wants this.
    "26": Release(("keystone==26.0.0", "cryptography<44", *_SERVER), "2025-03-01"),
    "27": Release(("keystone==27.0.0", "cryptography<44", *_SERVER), "2025-09-01"),  # 2025.1, likewise
}

# As distributions have them.
CLIENTS = {
    "ubuntu-22.04": Release(
        (
            "python-openstackclient==5.8.0",
            "keystoneauth1==4.5.0",
            "openstacksdk==0.61.0",
            "setuptools<81",
        ),
        "2022-06-01",
    ),
    "debian-12": Release(
        ("python-openstackclient==6.0.0", "keystoneauth1==5.0.0", "setuptools<81"), "2023-06-01"
    ),
    "ubuntu-24.04": Release(
        ("python-openstackclient==6.6.0", "keystoneauth1==5.6.0", "setuptools<81"), "2024-05-01"
    ),
}


def keystone() -> str | None:
    """The release of Keystone that this process is to start; without one, the newest."""
    return os.environ.get("KSB_STACK_KEYSTONE") or None


def named(name: str) -> Release | None:
    """By the name of its environment: `keystone-22`, `client-debian-12`."""
    kind, _, release = name.partition("-")
    return {"keystone": KEYSTONES, "client": CLIENTS}.get(kind, {}).get(release)


def names() -> list[str]:
    """The names of all environments."""
    return [f"keystone-{name}" for name in KEYSTONES] + [f"client-{name}" for name in CLIENTS]
