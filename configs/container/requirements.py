"""Prints what has to be installed for visaged, read from pyproject.toml, for one variant of the container.

On `cpu`, ONNX Runtime's build for CPUs takes the place of the one for GPUs, which is some 500 MB larger and runs the
same on a CPU. On `cuda`, CUDA and cuDNN come along.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

USAGE = "usage: requirements.py cpu|cuda, in the folder of pyproject.toml; VARIANT of the build is one of the two"


def requirements(project: dict[str, list[str]], variant: str) -> list[str]:
    """Return the requirements of a variant, from the table `project` of pyproject.toml."""
    if variant == "cuda":
        return [*project["dependencies"], *project["optional-dependencies"]["cuda"]]
    found = []
    for requirement in project["dependencies"]:
        runtime = re.match(r"onnxruntime(-gpu)?(?P<versions>[^;]*)", requirement)
        found.append(f"onnxruntime{runtime['versions']}" if runtime else requirement)
    return list(dict.fromkeys(found))


def main() -> None:
    """Print the requirements of the variant that the command line names."""
    if sys.argv[1:] not in (["cpu"], ["cuda"]):
        sys.exit(USAGE)
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    sys.stdout.write("\n".join(requirements(project, sys.argv[1])) + "\n")


if __name__ == "__main__":
    main()
