"""What the parts of the daemon raise."""

from __future__ import annotations


class StartError(Exception):
    """The daemon cannot start here: a model, a port, a file. The text says what to do."""
