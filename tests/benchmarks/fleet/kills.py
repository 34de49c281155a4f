"""Nodes of a fleet are killed with all that runs on them, one after the other: how long until their cameras go on.

The time is that from the kill to the first message of a frame under the new owner. Every fourth kill comes while the
broker has not answered for three seconds, so that the node leaves events in its spool, which it has to replay when it
is back. At the end the fleet is stopped, and all its events are counted.
"""

from __future__ import annotations

import random
import time

from tests.benchmarks.fleet.rig import distribution, is_frame, running, told
from tests.support.fleet import all_stream, all_up, camera, owners

NODES = ("a", "b", "c")
CAMERAS = 4
LEASE_S = 6.0
FROZEN_S = 3.0


def main(kills: int = 20) -> None:
    """Kill nodes so many times, and print what came of it."""
    chance = random.Random(1)
    recoveries: list[float] = []
    back: list[float] = []
    with running(NODES, CAMERAS, 2, LEASE_S) as rig:
        for number in range(1, kills + 1):
            before = rig.fleet.wait_for(all_stream, 60)
            node = chance.choice(sorted(set(owners(before).values())))
            lost = [name for name, owner in owners(before).items() if owner == node]
            frozen = number % 4 == 0
            if frozen:
                rig.broker.freeze()
                time.sleep(FROZEN_S)
            killed_s = time.monotonic()
            rig.cluster.kill(node)
            if frozen:
                rig.broker.thaw()
            for name in lost:
                epoch = camera(before, name).epoch
                first = rig.subscriber.wait_for(lambda one, n=name, e=epoch: is_frame(one, n, e), 60)
                recoveries.append(first.received_at - killed_s)
            began_s = time.monotonic()
            rig.cluster.add(node)
            rig.fleet.wait_for(all_up, 90)
            back.append(time.monotonic() - began_s)
            print(f"  kill {number:2} of {node}: {len(lost)} cameras, "
                  f"{' '.join(f'{one:.1f}' for one in recoveries[-len(lost):])} s", flush=True)  # fmt: skip
        found = rig.end()
    print(f"{kills} kills, lease {LEASE_S:g} s, {CAMERAS} cameras on {len(NODES)} nodes")
    print(f"  cameras elsewhere: {distribution(recoveries)}")
    print(f"  the machine joined again, and took part: {distribution(back)}")
    print(f"  {told(found)}")
    for line in [*found.interleaved, *map(str, found.unended), *map(str, found.ended_twice)]:
        print(f"    {line}")
