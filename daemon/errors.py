"""Errors that the parts of the daemon raise."""

from __future__ import annotations


class StartError(Exception):
    """The daemon cannot start because of a model, a port or a file; the text says what to do."""
