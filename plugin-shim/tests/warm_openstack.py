"""Runs `openstack` commands that come on stdin as JSON, each in a fork with its own environment."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback

from openstackclient import shell


def run(arguments: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.setsid()  # no controlling terminal
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                os.environ.clear()
                os.environ.update(environment)
                status = shell.main(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return status, out.read().decode(), err.read().decode()


for line in sys.stdin:
    print(json.dumps(run(*json.loads(line))), flush=True)  # noqa: T201
