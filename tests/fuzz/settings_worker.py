"""Reads configurations that come on stdin, each after its length, and writes a line of JSON for each."""

from __future__ import annotations

import json
import struct
import sys
import tempfile
import traceback
from pathlib import Path

from visaged.daemon.config.document import SettingsError
from visaged.daemon.settings import check, load, warnings


def _problems(path: Path) -> str:
    """Return what `visaged check` would say."""
    try:
        settings = load(path)
        return "\n".join(str(problem) for problem in check(settings) or warnings(settings))
    except SettingsError as error:
        return str(error)


def main() -> None:
    """Read until stdin ends."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "visaged.yaml"
        while head := sys.stdin.buffer.read(4):
            path.write_bytes(sys.stdin.buffer.read(struct.unpack(">I", head)[0]))
            try:
                answer = {"problems": _problems(path)}
            except Exception:
                answer = {"traceback": traceback.format_exc()}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
