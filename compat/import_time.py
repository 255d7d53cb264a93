"""What importing tqshim costs, beside multiprocessing.queues alone, which it needs.

    python -m compat.import_time [--rounds N]

Both are imported in new interpreters that take turns, from bytecode that is there already. Printed are the median
seconds of each, and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
MODULES: Final = ("multiprocessing.queues", "tqshim")
PROGRAM: Final = "import time; begun = time.perf_counter(); import {}; print(time.perf_counter() - begun)"


def seconds(module: str, bytecode: str) -> float:
    """What one import takes, with bytecode kept in that folder."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    command = [sys.executable, "-c", PROGRAM.format(module)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(rounds: int) -> tuple[float, float]:
    """The median of each module."""
    with tempfile.TemporaryDirectory() as bytecode:
        for module in MODULES:
            seconds(module, bytecode)
        taken = [[seconds(module, bytecode) for module in MODULES] for _ in range(rounds)]
    theirs, ours = (statistics.median(column) for column in zip(*taken))
    return theirs, ours


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m compat.import_time", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=30, help="imports of each (default: 30)")
    theirs, ours = measure(parser.parse_args(arguments).rounds)
    for module, taken in zip(MODULES, (theirs, ours)):
        print(f"{module}: {taken * 1000:.1f} ms")
    print(f"ratio: {ours / theirs:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
