"""What is kept in files: inputs that are right, inputs that once were findings, and words that mean something."""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
WORDS = Path(__file__).with_name("words")


def load(target: str) -> list[bytes]:
    """Return the inputs of a target, ordered by the names of their files."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def words(target: str) -> list[bytes]:
    """Return the words of a target: a line each, with the escapes of Python."""
    lines = (WORDS / f"{target}.txt").read_text("latin-1").split("\n")
    return [line.encode("latin-1").decode("unicode_escape").encode("latin-1") for line in lines if line]
