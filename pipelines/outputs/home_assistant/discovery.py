"""What is published for Home Assistant, and when: retained, once a camera begins, and cleared once it is gone."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from visaged.pipelines.outputs.home_assistant.devices import ID_START, Site

BIRTH = b"online"
"""What Home Assistant publishes when it has started, on `<prefix>/status`."""


class Discovery:
    """The discovery messages of a node.

    Args:
        prefix: First part of the topics on which Home Assistant looks for devices; None publishes nothing.
        site: The node.
    """

    def __init__(self, prefix: str | None, site: Site) -> None:
        self._prefix = prefix
        self._site = site
        self._announced: set[str] = set()

    @property
    def birth_topic(self) -> str | None:
        """Topic on which Home Assistant tells that it has started; None if nothing is published."""
        return None if self._prefix is None else f"{self._prefix}/status"

    def has(self, topic: str) -> bool:
        """Return whether a topic is one of these messages."""
        return self._prefix is not None and topic.startswith(f"{self._prefix}/device/{ID_START}")

    def node(self) -> dict[str, bytes]:
        """Return the message that makes the node's device, by topic; empty if nothing is published."""
        return self._message(self._site.node_id, orjson.dumps(self._site.node_device()))

    def announce(self, camera: str) -> dict[str, bytes]:
        """Return the message that makes a camera's device, by topic; empty if the camera is announced already."""
        if camera in self._announced:
            return {}
        self._announced.add(camera)
        return self._message(self._site.camera_id(camera), orjson.dumps(self._site.camera_device(camera)))

    def retract(self, camera: str) -> dict[str, bytes]:
        """Return the message that removes a camera's device, by topic."""
        self._announced.discard(camera)
        return self._message(self._site.camera_id(camera), b"")

    def leave(self, camera: str) -> None:
        """Announce a camera's device again when it comes back; until then, it is another node's."""
        self._announced.discard(camera)

    def topics_of(self, camera: str) -> set[str]:
        """Return the topic of a camera's device; none if nothing is published."""
        return set(self._message(self._site.camera_id(camera), b""))

    def topics(self, cameras: Iterable[str]) -> set[str]:
        """Return the topics of the node's and some cameras' devices."""
        ids = [self._site.node_id, *map(self._site.camera_id, cameras)]
        return {topic for id in ids for topic in self._message(id, b"")}

    def _message(self, id: str, payload: bytes) -> dict[str, bytes]:
        return {} if self._prefix is None else {f"{self._prefix}/device/{id}/config": payload}
