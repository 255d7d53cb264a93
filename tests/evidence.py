"""The long checks: what each is at full size, and when it last ran so, with which result.

Usage: python tests/evidence.py NAME [NAME ...] | --all | --list

Runs each at full size, beside nothing else, and appends a line to ``evidence.csv``: which check, the date, the commit,
seconds, exit status, and the last line that it printed.  The table in CONTRIBUTING.md is made from that file
(``python tests/documents.py``).  Refuses to run on a tree with changes: the commit would say nothing.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
RESULTS: Final = Path(__file__).with_name("evidence.csv")
MOST: Final = 120
"""Characters of a last line that the table shows."""
COLUMNS: Final = ("check", "date", "commit", "seconds", "status", "result")


class Check(NamedTuple):
    """One long check."""

    what: str
    command: str
    """At full size; from the root of a checkout, ``python`` being the interpreter that runs this."""
    in_ci: str
    """What of it runs in ``.ci/run``."""


CHECKS: Final = {
    "kills": Check(
        "ten minutes of processes that are killed, stopped, asked to end; every start method; 1,000 places",
        "python tests/kill_run.py --seconds 600 --seed 1 --maxsize 1000 --spawn 0.3 --forkserver 0.3",
        "15 s",
    ),
    "kills of claims": Check(
        "the same with joins, `claimed` and 100 places, in journals that are rolled all the time",
        "python tests/kill_run.py --seconds 600 --seed 2 --joinable --claimed 0.5 --maxsize 100 --limits 64 512",
        "15 s, of 10 places",
    ),
    "kills of batches": Check(
        "the same with batches of large items, and stops of up to five seconds",
        "python tests/kill_run.py --seconds 600 --seed 3 --big --many 20 --stopped 1 5",
        "two of 15 s, that with its options apart",
    ),
    "survival": Check(
        "puts whose producer dies at once, pools that end, looks from elsewhere, order in time: 100 runs each",
        "python tests/survival_run.py --runs 100 --looks 10000 --order 100000",
        "three runs each",
    ),
    "mutants": Check(
        "each planted fault of the engine is caught by a test of the contract",
        "python tests/mutants.py",
        "four, others each time",
    ),
    "equivalence": Check(
        "20,000 programs step by step, 5,000 concurrent histories, on the real queues and on ours",
        "python -m pytest -q -n 0 -m stress tests/test_real_queues.py",
        "some hundreds, others each time",
    ),
    "interruptions": Check(
        "mixed work of three processes, 10,000 acts a run, interrupted at any line, after any call, by timers",
        "python -m pytest -q -n 0 -m stress tests/test_interruptions.py",
        "300 acts a run",
    ),
    "interleavings": Check(
        "the rules of the ledger, and of sleeping and waking: the large cases of both checkers",
        "python -m pytest -q -n 2 -m stress --timeout=3600 tests/protocol",
        "the default cases, and waking's large ones",
    ),
    "walks": Check(
        "each line of a put or a get in each case, each line of each act, each disk that a power cut may leave",
        "python -m pytest -q -n 2 -m stress --timeout=3600 -k 'any_line_does_no_harm or at_each_line or after_any_step'"
        " tests/test_signals.py tests/test_crash_table.py tests/test_durability.py",
        "all but the acts' lines, of which some",
    ),
    "timeouts": Check(
        "2,000 waits of each kind beside stopped, busy and killed peers, and the machine's own sleeps",
        "python -m compat.timeouts --count 2000",
        "a hundred",
    ),
    "damage": Check(
        "20,000 damaged batch files and 20,000 damaged journals, and as many together where records have no checks",
        "python -m pytest -q -n 2 -m stress --timeout=3600 tests/test_damage.py",
        "hundreds, and those without checks",
    ),
    "load": Check(
        "many processes, items, queues, leftovers",
        "python -m compat.load",
        "a hundredth",
    ),
}


def rows() -> list[dict[str, str]]:
    """What was found so far, the oldest first."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table() -> str:
    """The checks, each with its newest result, as a table of a page."""
    newest = {row["check"]: row for row in rows()}
    lines = ["| check | at full size | in `.ci/run` | last at full size |", "|---|---|---|---|"]
    for name, check in CHECKS.items():
        row = newest.get(name)
        last = "not yet" if row is None else f"{row['date']}, {row['commit']}, {row['seconds']} s: {told(row)}"
        lines.append(f"| {name} | {check.what} | {check.in_ci} | {last} |")
    return "\n".join(lines)


def told(row: dict[str, str]) -> str:
    """How a run ended; of a long last line the end."""
    said = row["result"]
    if len(said) > MOST:
        said = "… " + said[-MOST:].partition(", ")[2]
    return f"{'passed' if row['status'] == '0' else 'failed'}; {said}".replace("|", "\\|")


def commit() -> str:
    """What is checked out.  Raises ``SystemExit`` where that is not what would run."""
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    if [line for line in changed.splitlines() if not line.endswith(RESULTS.name)]:
        raise SystemExit("evidence: there are changes that no commit has; commit them first")
    return asked("rev-parse", "--short", "HEAD").strip()


def asked(*words: str) -> str:
    """What git answers."""
    return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def run(name: str, at: str) -> int:
    """Run one check, and note what came of it."""
    words = shlex.split(CHECKS[name].command)
    print(f"== {name}: {CHECKS[name].command}", flush=True)
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout, flush=True)
    said = [line.strip("= ") for line in done.stdout.splitlines() if line.strip("= ")]
    today = datetime.date.today().isoformat()
    is_new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        seconds = round(time.monotonic() - began)
        writer.writerow([name, today, at, seconds, done.returncode, said[-1] if said else ""])
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which checks")
    parser.add_argument("--all", action="store_true", help="every one, for hours")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    given = parser.parse_args()
    unknown = set(given.names) - set(CHECKS)
    if unknown:
        parser.error(f"no such check: {', '.join(sorted(unknown))}; there are: {', '.join(CHECKS)}")
    if given.list or not (given.names or given.all):
        print("\n".join(f"{name}: {check.command}" for name, check in CHECKS.items()))
        return 0
    at = commit()
    return max([run(name, at) for name in (CHECKS if given.all else given.names)])


if __name__ == "__main__":
    sys.exit(main())
