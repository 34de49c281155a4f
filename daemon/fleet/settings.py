"""The configuration of a fleet: its nodes, and which of them may hold a camera.

`visaged run` checks these keys and has no use for them, so that one file does for both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from visaged.daemon.config.base import NAME_PATTERN, Name
from visaged.pipelines.runtime.config import Hidden, NotBoolean, StrictConfig

Capacity = Annotated[float, Field(ge=0, le=100_000)]
"""Cameras of weight 1."""


class CameraFleet(StrictConfig):
    """Which nodes of a fleet may hold a camera, and what it asks of them."""

    site: Name | None = None
    """Only nodes of this site may hold the camera; null for any site."""
    nodes: list[Name] | None = Field(default=None, min_length=1)
    """Only these nodes may hold the camera; null for any."""
    weight: Annotated[float, Field(ge=0.01, le=1000)] = 1.0
    """Its share of a node's capacity: 2 takes the place of two cameras."""


class NodeFleet(StrictConfig):
    """A node of a fleet."""

    site: Name | None = None
    """The site that it stands at, for cameras that only nodes there can reach."""
    capacity: Capacity | None = None
    """Cameras of weight 1 that it can analyse; null for what it has measured. 0: it holds none."""
    settings: Annotated[dict[str, Any], Hidden()] = Field(default={})
    """Keys of the configuration that are different on this node: a JSON merge patch (RFC 7386) over it. Cameras, `node`
    and `fleet` cannot differ."""

    @field_validator("settings")
    @classmethod
    def _are_a_nodes(cls, settings: dict[str, Any]) -> dict[str, Any]:
        common = sorted({"cameras", "fleet", "node"} & settings.keys())
        if common:
            raise ValueError(f"has {', '.join(common)}, which cannot differ from node to node; drop it here")
        return settings


class FleetSettings(StrictConfig):
    """The fleet that this configuration is for (`visaged fleet`); a single machine takes no notice of it."""

    name: Name = "visaged"
    """Name of the fleet, which tells it from others on the same Ray cluster."""
    lease_s: Annotated[float, Field(ge=1, le=300)] = 6.0
    """Seconds after which a node that is not heard of loses its cameras to others. So long, too, nodes publish without
    a coordinator."""
    only_listed: bool = False
    """Whether nodes that are not listed in `nodes` are refused."""
    default_capacity: Capacity = 4.0
    """Capacity of a node that neither has one in `nodes`, nor has measured its own yet."""
    nodes: dict[str, NodeFleet] = Field(default={})
    """Nodes by name, which is that of the label `visaged-node` of the Ray node, or else the host's."""

    @field_validator("nodes")
    @classmethod
    def _are_names(cls, nodes: dict[str, NodeFleet]) -> dict[str, NodeFleet]:
        for name in nodes:
            if re.fullmatch(NAME_PATTERN, name) is None:
                raise ValueError(
                    f"{name[:70]!r} is not a name of a node: letters, digits, _ . - are possible, at most 64"
                )
        return nodes


class ServedPictures(StrictConfig):
    """Single pictures by the whole fleet: the HTTP API behind Ray Serve; a single machine takes no notice of it."""

    enabled: bool = False
    """Whether `visaged fleet run` deploys it."""
    host: str = "127.0.0.1"
    """Address on which Ray Serve's proxy listens on every node, such as 0.0.0.0. Beyond loopback it takes `http.keys`
    (or `http.without_keys`)."""
    port: Annotated[int, Field(ge=1, le=65535), NotBoolean] = 8000
    """Port of Ray Serve's proxy on every node."""
    doors: Path | None = None
    """Folder of the sockets on which the node's daemon answers Ray Serve's replica beside it. The fleet sets it on each
    node; leave it out."""
