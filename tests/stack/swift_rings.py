"""Writes Swift's rings, which say where its servers are: here, each kind once, with one device.

With Swift's Python: swift_rings.py FOLDER DEVICE SERVER=PORT… (its own tool would be started nine times).
"""

import sys
from pathlib import Path

from swift.common.ring import RingBuilder


def main(folder: Path, device: str, *servers: str) -> None:
    for server in servers:
        name, _, port = server.partition("=")
        builder = RingBuilder(part_power=1, replicas=1, min_part_hours=0)
        place = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port)}
        builder.add_dev({**place, "device": device, "weight": 1.0})
        builder.rebalance()
        builder.get_ring().save(str(folder / f"{name}.ring.gz"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
