"""Prints what has to be installed for visaged, read from pyproject.toml, for a variant of the container and its extras.

On `cpu`, ONNX Runtime's build for CPUs takes the place of the one for GPUs, which is some 500 MB larger and runs the
same on a CPU. On `cuda`, CUDA and cuDNN come along.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

USAGE = (
    "usage: requirements.py cpu|cuda [EXTRA ...], in the folder of pyproject.toml; VARIANT of the build is one of the "
    "first two, EXTRAS are of the optional-dependencies, such as fleet"
)


def requirements(project: dict[str, Any], variant: str, extras: Sequence[str] = ()) -> list[str]:
    """Return the requirements of a variant with some extras, from the table `project` of pyproject.toml."""
    optional = project["optional-dependencies"]
    more = [requirement for extra in extras for requirement in optional[extra]]
    if variant == "cuda":
        return [*project["dependencies"], *optional["cuda"], *more]
    found = []
    for requirement in [*project["dependencies"], *more]:
        runtime = re.match(r"onnxruntime(-gpu)?(?P<versions>[^;]*)", requirement)
        found.append(f"onnxruntime{runtime['versions']}" if runtime else requirement)
    return list(dict.fromkeys(found))


def main() -> None:
    """Print the requirements of the variant and the extras that the command line names."""
    variant, extras = sys.argv[1:2], sys.argv[2:]
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    if variant not in (["cpu"], ["cuda"]) or not project["optional-dependencies"].keys() >= set(extras):
        sys.exit(USAGE)
    sys.stdout.write("\n".join(requirements(project, variant[0], extras)) + "\n")


if __name__ == "__main__":
    main()
