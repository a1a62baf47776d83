"""Names in /etc/hosts: browsers resolve *.localhost themselves, the C library does not."""

import os
import subprocess
from pathlib import Path

from .certificates import HOSTS
from .running import StackError

FILE = Path("/etc/hosts")


def ensure() -> None:
    """Adds the names that are missing."""
    text = FILE.read_text()
    known = {name for line in text.splitlines() for name in line.partition("#")[0].split()[1:]}
    missing = [name for name in HOSTS if name not in known]
    if not missing:
        return
    line = f"127.0.0.1 {' '.join(missing)}\n"
    if not text.endswith("\n"):
        line = "\n" + line
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    done = subprocess.run([*sudo, "tee", "-a", str(FILE)], input=line, text=True, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        raise StackError(f"add this line to {FILE}: {line.strip()}")
