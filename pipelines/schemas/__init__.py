"""JSON Schemas of the messages, as files that come with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def schema(name: str) -> dict[str, Any]:
    """Return the schema of a kind of message.

    Args:
        name: `faces`, `events`, `node-status`, `camera-status`, `presence`, `discovery`, or `face`, which holds the
            definitions that they share.
    """
    document: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return document
