"""Which CPython interpreters of the supported versions this machine has."""

from __future__ import annotations

import functools
import glob
import os
import shutil
import subprocess
import sys
from typing import Final

VERSIONS: Final = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
EXTRA: Final = "TQSHIM_PYTHONS"  # Further interpreters, separated as in PATH.
PROBE: Final = (
    "import importlib.util, sys; importlib.util.find_spec('test._test_multiprocessing') or sys.exit(1); "
    "print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
)


@functools.cache
def interpreters() -> dict[str, str]:
    """Return the path of one interpreter that has its test suite for each supported version found.

    Looked at in this order: the running one, TQSHIM_PYTHONS, python3.X on PATH, pyenv's versions. What does not run
    (a shim of a version that is not chosen) is passed over.
    """
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    candidates = [sys.executable, *os.environ.get(EXTRA, "").split(os.pathsep)]
    candidates += [shutil.which(f"python{version}") or "" for version in VERSIONS]
    candidates += sorted(glob.glob(os.path.join(root, "versions", "3.*", "bin", "python")))
    found: dict[str, str] = {}
    for path in filter(None, candidates):
        try:
            probe = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        found.setdefault(probe.stdout.strip(), path)
    return {version: found[f"cpython {version}"] for version in VERSIONS if f"cpython {version}" in found}
