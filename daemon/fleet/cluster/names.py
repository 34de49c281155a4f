"""Names of the fleet's actors on a Ray cluster."""

from __future__ import annotations

NAMESPACE = "visaged"
"""Ray's namespace of all actors of all fleets."""
NODE_LABEL = "visaged-node"
"""Label of a Ray node (`ray start --labels`) that names it; without it, its host's name does."""


def coordinator_name(fleet: str) -> str:
    """Return the name of a fleet's coordinator actor."""
    return f"visaged-{fleet}"


def node_name(fleet: str, node: str, ray_id: str) -> str:
    """Return the name of the node actor on a Ray node.

    A machine that joins the cluster again is another node to Ray, and its old actor may not be gone yet: the names of
    both hold Ray's number of the node.
    """
    return f"{node_prefix(fleet)}{node}/{ray_id[:12]}"


def node_prefix(fleet: str) -> str:
    """Return what the names of all node actors of a fleet begin with; no fleet's name holds a slash."""
    return f"{coordinator_name(fleet)}/"
