"""Entry point of the stack: everything is in the package `cloud`."""

import sys

from cloud.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
