"""How many replicas there are: one for each node of the Ray cluster, as nodes come and go."""

from __future__ import annotations

import time
from typing import Any

import ray

# Serve's controller asks ten times a second.
_LOOK_S = 2.0


def one_for_each_node(context: Any) -> tuple[int, dict[str, Any]]:
    """Return the number of replicas, and what is to be known the next time.

    Args:
        context: Serve's `AutoscalingContext`.
    """
    known = context.policy_state or {}
    now_s = time.monotonic()
    if now_s < known.get("until_s", now_s):
        return known["nodes"], known
    nodes = sum(one["Alive"] for one in ray.nodes())
    return nodes, {"nodes": nodes, "until_s": now_s + _LOOK_S}
