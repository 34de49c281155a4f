"""The environment of the sections: the driver's libraries must be found by name."""

from __future__ import annotations

import ctypes
import os
from glob import glob
from pathlib import Path

_DRIVER = ("libcuda.so.1", "libnvcuvid.so.1")
_PLACES = (
    "/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/wsl/lib",
    "/usr/lib64", "/usr/local/cuda/compat", "/usr/local/nvidia/*/", "/usr/lib/x86_64-linux-gnu/nvidia/*/",
)  # fmt: skip


def child_environment() -> tuple[dict[str, str], dict[str, str]]:
    """Return environment variables, and where each library of the driver was found.

    Containers have the driver's folder mounted, and not always known to the loader.
    """
    environment, notes, folders = dict(os.environ), dict[str, str](), list[str]()
    for name in _DRIVER:
        try:
            ctypes.CDLL(name)
            notes[name] = "found by the loader"
            continue
        except OSError as error:
            notes[name] = str(error)
        found = [path for place in _PLACES for path in glob(f"{place}/{name}")]
        if found:
            notes[name] += f"; it is {found[0]}: its folder was added to LD_LIBRARY_PATH"
            folders.append(str(Path(found[0]).parent))
        elif others := [path for place in _PLACES for path in glob(f"{place}/{name.partition('.so')[0]}*")]:
            notes[name] += f"; there is {', '.join(others)}"
    if folders:
        known = [environment["LD_LIBRARY_PATH"]] if environment.get("LD_LIBRARY_PATH") else []
        environment["LD_LIBRARY_PATH"] = ":".join([*dict.fromkeys(folders), *known])
    return environment, notes
