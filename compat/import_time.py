"""What a program pays before its first item: imports, a first queue, a queue that is hardly used, a child.

    python -m compat.import_time [--rounds N]

Each program runs in a new interpreter, with the standard library's queue and with tqshim's in turns;
``multiprocessing.queues`` is imported before the clock runs.  The table has, for each, the median of the milliseconds
by the clock and the fewest milliseconds of processor time; a busy machine changes the former, hardly the latter.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
QUEUES: Final = {
    "multiprocessing": "from multiprocessing import Queue",
    "tqshim": "from tqshim import TurboQueue as Queue",
}

BEGIN: Final = """
import multiprocessing.queues, os, time
def now():
    return time.perf_counter(), time.process_time()
def say(begun, count=1):
    print(*[(after - before) / count * 1e3 for before, after in zip(begun, now())])
"""
FIRST: Final = """
begun = now()
{queue}
queue = Queue()
queue.put(1)
assert queue.get() == 1
say(begun)
"""
OFTEN: Final = """
{queue}
def once():
    queue = Queue()
    {use}
    queue.close()
    queue.join_thread()
for _ in range(10):
    once()
begun = now()
for _ in range(100):
    once()
say(begun, 100)
"""
USE: Final = "queue.put(1); queue.get()"
CHILD: Final = """
{queue}
def child():
    begun = now()
    queue.put(1)
    assert queue.get() == 1
    say(begun)
queue = Queue()
queue.put(1)
queue.get()
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
"""
PROGRAMS: Final = {
    "import": ("begun = now()\n{queue}\nsay(begun)", True),
    "import, first queue, put, get": (FIRST, True),
    "the same without our bytecode": (FIRST, False),
    "a queue made and closed": (OFTEN.replace("{use}", "pass"), True),
    "a queue used once": (OFTEN.replace("{use}", USE), True),
    "a forked child's first put and get": (CHILD, True),
}
"""By what they measure: a program, and whether bytecode is there."""


def milliseconds(program: str, home: str, bytecode: str) -> tuple[float, float]:
    """The milliseconds that a program reports.  ``home``: where the package lies.  ``bytecode``: the folder of the
    bytecode; without one, Python looks beside the sources, where only the standard library has some."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment.update({"PYTHONPYCACHEPREFIX": bytecode} if bytecode else {"PYTHONDONTWRITEBYTECODE": "1"})
    environment["PYTHONPATH"] = home
    command = [sys.executable, "-c", BEGIN + program]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=True)
    wall, processor = map(float, done.stdout.split())
    return wall, processor


def measure(rounds: int, folder: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """The milliseconds of each run, by what was measured, and by the package of the queues."""
    home = os.path.join(folder, "home")
    shutil.copytree(ROOT / "tqshim", os.path.join(home, "tqshim"), ignore=shutil.ignore_patterns("__pycache__"))
    cache = os.path.join(folder, "cache")
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, (program, written) in PROGRAMS.items():
        runs = found[name] = {kind: [] for kind in QUEUES}
        for turn in range(rounds + 1):
            for kind, queue in QUEUES.items():
                took = milliseconds(program.replace("{queue}", queue), home, cache if written else "")
                if turn:  # the first one writes the bytecode
                    runs[kind].append(took)
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m compat.import_time", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=15, help="runs of each program (default: 15)")
    rounds = parser.parse_args(arguments).rounds
    with tempfile.TemporaryDirectory() as folder:
        found = measure(rounds, folder)
    print(f"{'milliseconds':36} {'theirs':>15} {'ours':>15}")
    for name, runs in found.items():
        columns = []
        for took in runs.values():
            walls, processor = zip(*took)
            columns.append(f"{statistics.median(walls):7.2f} {min(processor):7.2f}")
        print(f"{name:36} {' '.join(columns)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
