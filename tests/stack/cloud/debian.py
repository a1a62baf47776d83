"""Debian's packages, by the sets of install.sh."""

from .layout import SOURCE
from .running import command

# In the order in which they are needed: what comes after `java` takes the longest.
SETS = ("build", "java", "servers", "browser", "tests")


def install(name: str) -> None:
    """Installs those packages of a set that are missing."""
    command([SOURCE / "install.sh", name], log="debian")
