"""The machine that figures come from.

Lives here: what a report says about that machine beside its figures.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from typing import Any

import tqshim
from tqshim.queues.queue import TurboQueue
from tqshim.runtime.systems import PROC, processors

__all__ = ["describe", "file_system"]


def _model() -> str:
    """The processor's name, where the system tells."""
    try:
        with open(f"{PROC}/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model", "cpu"):
                    return value.strip()
    except FileNotFoundError:  # no Linux
        pass
    return platform.processor() or "unknown"


def file_system(path: str) -> str:
    """The type of the file system that a path is on, where the system tells."""
    path = os.path.realpath(path)
    best, kind = "", "unknown"
    try:
        with open(f"{PROC}/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                mount, _, rest = line.partition(" - ")
                point = mount.split()[4]
                if len(point) >= len(best) and (path + "/").startswith(point.rstrip("/") + "/"):
                    best, kind = point, rest.split()[0]
    except FileNotFoundError:  # no Linux
        pass
    return kind


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe(method: str, distributions: Iterable[str]) -> dict[str, Any]:
    """Return what a report says about the machine: processors, interpreter, kernel, load, start method, where queues
    lie, and the versions of this package and of ``distributions``."""
    with TurboQueue() as queue:
        engine = queue._engine
        assert engine is not None
        folder = engine.folder.path
    return {
        "processors": processors(),
        "model": _model(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "bytecode": "written"
        if tqshim.__spec__ and os.path.exists(tqshim.__spec__.cached or "")
        else "not written: each process compiles the package",
        "load": round(os.getloadavg()[0], 2),
        "start_method": method,
        "queues_in": os.path.dirname(folder),
        "file_system": file_system(os.path.dirname(folder)),
        "versions": {"tqshim": tqshim.__version__, **{name: _version(name) for name in distributions}},
    }
