"""Makes the environment that Home Assistant needs, once, and runs the checks in it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("homeassistant==2024.12.5", "pytest-homeassistant-custom-component==0.13.195", "numpy", "paho-mqtt")
VERSIONS = ("3.12", "3.13")


def find_python() -> str | None:
    """A Python that this Home Assistant runs on."""
    names = [*(shutil.which(f"python{version}") for version in VERSIONS)]
    names += [str(path) for version in VERSIONS for path in Path.home().glob(f".pyenv/versions/{version}*/bin/python")]
    for name in [sys.executable, *filter(None, names)]:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([name, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() in VERSIONS:
            return name
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.home_assistant", description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".home-assistant", help="the environment; made if missing")
    parser.add_argument("--python", default=None, help="a Python 3.12 or 3.13 to make it with")
    arguments = parser.parse_args()
    python = arguments.venv / "bin" / "python"
    if not (arguments.venv / ".complete").exists() and not shutil.which("hass", path=str(python.parent)):
        base = arguments.python or find_python()
        if base is None:
            print(f"Home Assistant needs Python {' or '.join(VERSIONS)}, and none was found; name one with --python")
            return 2
        print(f"installing Home Assistant into {arguments.venv}, which takes some minutes", flush=True)
        subprocess.run([base, "-m", "venv", "--clear", str(arguments.venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (arguments.venv / ".complete").touch()
    # Not with the settings and fixtures of the other tests, which need visaged's own packages.
    command = [str(python), "-m", "pytest", "-c", str(Path(__file__).with_name("pytest.ini")), f"--rootdir={ROOT}"]
    command += ["--confcutdir", str(Path(__file__).parent), str(Path(__file__).with_name("checks.py"))]
    environment = os.environ | {"VISAGED_PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"}
    environment["VISAGED_PATH"] = environment.pop("PYTHONPATH", "")
    return subprocess.run(command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
