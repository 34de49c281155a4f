"""Keeps Ray Serve as the configuration has it. The process is connected to the Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ray

if TYPE_CHECKING:
    from visaged.daemon.settings import Settings


def serve_as_configured(settings: Settings) -> None:
    """Deploy the pictures' APIs of a fleet, or remove them; takes seconds.

    Raises:
        StartError: They cannot be deployed; the text says what to do.
    """
    if settings.http.fleet.enabled:
        # Ray Serve takes a second to import, and most fleets do without it.
        from visaged.daemon.fleet.pictures.deployment import deploy

        deploy(settings)
    else:
        serve_no_more(settings.fleet.name)


def serve_no_more(fleet: str) -> None:
    """Remove the pictures' APIs of a fleet, if they are deployed."""
    if any(one["namespace"] == "serve" for one in ray.util.list_named_actors(all_namespaces=True)):
        from visaged.daemon.fleet.pictures.deployment import undeploy

        undeploy(fleet)
