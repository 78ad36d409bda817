"""The environment of dlt: made once under the user's cache, from the versions in dlt.txt."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

WANTED = Path(__file__).with_name("dlt.txt")


def dlt() -> Path:
    """Return the Python of dlt's environment; make it if it is not there.

    Raises subprocess.CalledProcessError if pip cannot install it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(WANTED.read_bytes() + version.encode()).hexdigest()[:12]
    folder = cache / "callflow-bench" / f"dlt-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(WANTED)], check=True)
        (folder / "whole").touch()
    return python
