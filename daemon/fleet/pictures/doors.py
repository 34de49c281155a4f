"""The doors of a machine's node: sockets of the file system on which its daemon answers Serve's replica beside it.

They lie where both sides look for them without asking anybody: both know the fleet and the Ray node that they run on.
A port would not do: the daemon may listen on one address alone or with TLS, any user of the machine may take a port
that is free, and only on a socket that nobody else can open may the daemon believe what a request says of its client.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

API = "api.sock"
"""Name of the socket of the HTTP API."""
OSS = "oss.sock"
"""Name of the socket of the OSS-compatible endpoint."""


def folder_of(fleet: str, ray_node: str) -> Path:
    """Return the folder of the doors of a node; short, because the path of a socket may have 107 bytes.

    Args:
        fleet: Name of the fleet.
        ray_node: Id of the Ray node, in hexadecimal digits.
    """
    name = hashlib.sha256(f"{fleet}/{ray_node}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"visaged-{os.getuid()}" / name


def make_folder(folder: Path) -> None:
    """Make the folder of doors, if it is not there.

    Raises:
        PermissionError: Another user could have put something there.
    """
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, exist_ok=True)
        found = one.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{one} is not a folder of this user alone; remove it")
