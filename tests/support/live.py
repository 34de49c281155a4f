"""Viewers of live pictures: answers in parts that go on until somebody ends them."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import cv2
import httpx
import numpy as np

from visaged.models.types import Image

PATIENCE_S = 30.0


class Viewer:
    """A viewer that reads part by part.

    Args:
        client: Of the daemon; the viewer has a connection of its own.
        path: What it looks at, with the query.
        headers: Of its request.
    """

    def __init__(self, client: httpx.Client, path: str, headers: Mapping[str, str] | None = None) -> None:
        url = client.base_url
        self._connection = http.client.HTTPConnection(url.host, url.port, timeout=PATIENCE_S)
        self._connection.request("GET", path, headers=dict(headers or {}))
        self.answer = self._connection.getresponse()

    @property
    def status(self) -> int:
        """Status of the answer."""
        return self.answer.status

    def part(self) -> tuple[str, bytes] | None:
        """Return the next part's type and content; None at the end of the answer."""
        line = self.answer.readline()
        if not line:
            return None
        while line in (b"\r\n", b"--frame\r\n"):
            line = self.answer.readline()
            if not line:
                return None
        fields = {}
        while line != b"\r\n":
            assert line, "the answer ended within the head of a part"
            name, _, value = line.decode().partition(":")
            fields[name.lower()] = value.strip()
            line = self.answer.readline()
        return fields["content-type"], self.answer.read(int(fields["content-length"]))

    def picture(self) -> Image:
        """Return the next part, which must be a JPEG."""
        part = self.part()
        assert part is not None
        assert part[0] == "image/jpeg"
        return decoded(part[1])

    def pair(self) -> tuple[dict[str, Any], Image]:
        """Return the next document and its picture."""
        part = self.part()
        assert part is not None
        assert part[0] == "application/json"
        return json.loads(part[1]), self.picture()

    def ends(self) -> bool:
        """Read on, and return whether the answer ends as an answer should."""
        while self.part() is not None:
            pass
        return True

    def close(self) -> None:
        self._connection.close()
        self.answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def decoded(data: bytes) -> Image:
    """Return a JPEG as (H, W, 3) uint8 BGR."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image  # type: ignore[return-value]


def silent_viewer(client: httpx.Client, path: str) -> socket.socket:
    """Ask for something and never read."""
    url = client.base_url
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.settimeout(PATIENCE_S)
    opened.connect((url.host, url.port))
    opened.sendall(f"GET {path} HTTP/1.1\r\nHost: {url.host}\r\n\r\n".encode())
    return opened
