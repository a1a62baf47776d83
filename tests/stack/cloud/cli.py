"""The commands of `stack`."""

import argparse
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from . import (
    apache,
    browser,
    certificates,
    content,
    debian,
    environment,
    golang,
    hosts,
    keycloak,
    keystone,
    plan,
    postgres,
    processes,
    releases,
    secrets_file,
    swift,
    venvs,
)
from .layout import (
    ALL_FRONTS,
    DOWNLOADS,
    FRONTS,
    KEYCLOAK_VERSION,
    SERVICES_FRONT,
    SHORT_LIFETIME,
    STATE,
    front_url,
)
from .running import Phases, StackError, only_one

# Each needs what those before it need.
PURPOSES = ("sign-in", "object-store", "tests")
DAEMONS = ("apache", "keystone-short", "keystone-long", "keycloak", "postgres", *swift.NAMES)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="install, start and fill everything that is not there yet")
    up.add_argument(
        "--for",
        dest="purpose",
        choices=PURPOSES,
        default="tests",
        help="only what a sign-in needs, or that and the object store",
    )
    up.add_argument("--quiet", action="store_true", help="say nothing unless it fails")
    up.add_argument(
        "--all",
        action="store_true",
        help="make all Python environments, not only those that every test run needs",
    )
    commands.add_parser("down", help="end what `up` started")
    commands.add_parser("status", help="what runs (exit 3: not all of it)")
    commands.add_parser("env", help="print what tests need to know as shell assignments")
    ttl = commands.add_parser("ttl", help="lifetime of tokens of the short fronts (5030 to 5034)")
    ttl.add_argument("seconds", type=int, nargs="?", default=SHORT_LIFETIME)
    commands.add_parser("plan", help="print what `make demo` has yet to download and to build")
    commands.add_parser("tofu", help="build OpenTofu and its provider, and tell how far it is")
    venv = commands.add_parser("venv", help="make a Python environment and print its path")
    venv.add_argument("name", choices=(*venvs.NAMES, *releases.names()))
    clean = commands.add_parser("clean", help="end everything and forget the cloud (downloads stay)")
    clean.add_argument("--all", action="store_true", help="downloads and environments too")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except StackError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "env":
            print(environment.text())
            return 0
        case "plan":
            print(plan.text())
            return 0
        case "status":
            return _status()
    STATE.mkdir(parents=True, exist_ok=True)
    STATE.chmod(0o700)
    if options.command == "tofu":  # beside an `up`
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        golang.build_tofu(Phases(quiet=False).say)
        return 0
    with only_one("stack"):
        match options.command:
            case "up":
                _up(Phases(quiet=options.quiet), options.purpose, everything=options.all)
            case "down":
                _down()
            case "ttl":
                keystone.set_short_lifetime(options.seconds)
            case "venv":
                print(venvs.make(options.name))
            case "clean":
                _down()
                # By name: other things of the project lie in the same cache.
                for folder in (
                    STATE,
                    *((DOWNLOADS, venvs.HOME, golang.HOME, browser.MODULES) if options.all else ()),
                ):
                    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _up(phases: Phases, purpose: str, *, everything: bool) -> None:
    tests = purpose == "tests"
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    secrets = secrets_file.load()
    hosts.ensure()
    with ThreadPoolExecutor(max_workers=8) as pool, ThreadPoolExecutor(max_workers=1) as apt:
        sets = {
            name: apt.submit(phases.run, f"debian packages: {name}", partial(debian.install, name))
            for name in debian.SETS
            if tests or name != "tests"
        }

        def certificate() -> None:
            sets["build"].result()
            phases.run("certificates", certificates.make)

        def installer() -> None:
            sets["build"].result()
            phases.run("uv: from PyPI", venvs.uv)

        tls = pool.submit(certificate)
        uv = pool.submit(installer)

        def identity_provider() -> None:
            sets["java"].result()
            phases.run(f"keycloak: fetched {KEYCLOAK_VERSION}", keycloak.fetch)
            tls.result()
            phases.run("keycloak: ready", lambda: keycloak.start(secrets))

        def cloud() -> None:
            uv.result()
            phases.run("keystone: installed", lambda: venvs.make("keystone"))
            sets["servers"].result()
            phases.run("postgresql: ready", postgres.start)
            phases.run("keystone: database", lambda: keystone.prepare(secrets["admin"]))
            phases.run("keystone: ready", lambda: keystone.start() if tests else keystone.start(("long",)))
            phases.run("keystone: filled", lambda: content.make(secrets, tests=tests))

        def object_store() -> None:
            uv.result()
            phases.run("swift: installed", lambda: venvs.make("swift"))
            sets["servers"].result()
            phases.run("swift: ready", lambda: swift.start(secrets))

        def browsers() -> None:
            uv.result()
            phases.run("puppeteer-core: from npm", browser.install)
            tls.result()
            sets["browser"].result()
            phases.run("browser: trusts the authority", browser.trust)
            browser.settings()

        def environments() -> None:
            uv.result()
            names = ("client", "plain", "horizon") if tests else ("client",)
            for name in venvs.NAMES if everything else names:
                phases.run(f"python environment: {name}", partial(venvs.make, name))

        def programs() -> None:
            uv.result()
            for program in golang.PROGRAMS:
                phases.run(
                    f"{Path(program.file).name}: built from Go modules", partial(golang.build, program)
                )
            golang.configure()
            golang.clean_up()

        # The longest first; each of these is a chain whose steps need one another.
        work = [identity_provider, cloud, browsers, environments]
        if purpose != "sign-in":
            work.append(object_store)
        if tests:
            work.insert(0, programs)
        chains = [pool.submit(chain) for chain in work]
        for chain in chains:
            chain.result()
    phases.run(
        "apache: ready", lambda: apache.start(secrets, ALL_FRONTS if tests else (*FRONTS, SERVICES_FRONT))
    )
    if tests:
        phases.table()
    phases.say(f"up: {front_url(FRONTS[0])}")


def _down() -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(processes.stop, DAEMONS))


def _status() -> int:
    pids = {name: processes.running(name) for name in DAEMONS}
    for name, pid in pids.items():
        print(f"{name:16} {f'pid {pid}' if pid else 'not running'}")
    return 0 if all(pids.values()) else 3
