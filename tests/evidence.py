"""The long checks: what each does at full size, when it last ran at full size, and with which result.

Usage: python tests/evidence.py NAME [NAME ...] | --all | --list

Run each named check at full size, with nothing else beside it, and append a line to ``evidence.csv``: the check, the
date, the commit, seconds, exit status, the command, and the last line that it printed.  The table in CONTRIBUTING.md is
made from that file (``python tests/documents.py``).  On a tree with changes nothing runs: the commit would not say what
was checked.
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
COLUMNS: Final = ("check", "date", "commit", "seconds", "status", "command", "result")


KILLS: Final = "python tests/kill_run.py --seconds 10"


class Check(NamedTuple):
    """One long check."""

    what: str
    command: str
    """At full size; from the root of a checkout, ``python`` being the interpreter that runs this."""
    in_ci: str
    """How much of it runs in ``.ci/run``."""
    by: tuple[str, ...]
    """What runs that: words of ``.ci/run``, or tests of the default run, which it begins with; empty: nothing does."""


CHECKS: Final = {
    "kills": Check(
        "ten minutes of processes that are killed, stopped, asked to end; every start method; 1,000 places",
        "python tests/kill_run.py --seconds 600 --seed 1 --maxsize 1000 --spawn 0.3 --forkserver 0.3",
        "10 s",
        ("--maxsize 1000 --spawn 0.3 --forkserver 0.3", KILLS),
    ),
    "kills of claims": Check(
        "the same with joins, `claimed` and 100 places, in journals that are rolled all the time",
        "python tests/kill_run.py --seconds 600 --seed 2 --joinable --claimed 0.5 --maxsize 100 --limits 64 512",
        "10 s, of 10 places",
        ("--maxsize 10 --limits 64 512 --joinable --claimed 0.5", KILLS),
    ),
    "kills of batches": Check(
        "the same with batches of large items, and stops of up to five seconds",
        "python tests/kill_run.py --seconds 600 --seed 3 --big --many 20 --stopped 1 5",
        "two of 10 s, that with its options apart",
        ("--consumers 1 --stopped 1 5", "--joinable --limits 16 64 --many 20", KILLS),
    ),
    "survival": Check(
        "puts whose producer dies at once, pools that end, looks from elsewhere, order in time: 100 runs each",
        "python tests/survival_run.py --runs 100 --looks 10000 --order 100000",
        "three runs each",
        (
            "test_all_that_was_put_outlives_its_producer",
            "test_block_of_a_pool_that_ends_loses_no_result",
            "test_another_process_sees_each_item_right_after_its_put",
            "test_items_put_apart_come_in_the_order_of_time",
        ),
    ),
    "mutants": Check(
        "each planted fault of the engine is caught by a test of the contract",
        "python tests/mutants.py",
        "all",
        ("python tests/mutants.py",),
    ),
    "equivalence": Check(
        "20,000 programs step by step, 5,000 concurrent histories, on the real queues and on ours",
        "python -m pytest -q -n 0 -m stress tests/test_real_queues.py",
        "hundreds of programs and histories, others each time",
        (
            "test_a_program_comes_to_the_same_on_a_real_queue",
            "test_a_program_comes_to_the_same_on_a_queue_for_threads",
            "test_some_order_explains_what_processes_and_threads_saw",
        ),
    ),
    "interruptions": Check(
        "mixed work of three processes, 10,000 acts a run, interrupted at any line, after any call, by timers",
        "python -m pytest -q -n 2 -m stress --timeout=3600 tests/test_interruptions.py",
        "300 acts a run",
        ("test_interrupted_acts_lose_double_and_damage_nothing",),
    ),
    "interleavings": Check(
        "the rules of the ledger, and of sleeping and waking: the large cases of both checkers",
        "python -m pytest -q -n 2 -m stress --timeout=3600 tests/protocol",
        "eight of the default cases, of all of these and waking's large ones a share",
        (
            "pytest -q -n 3 -m 'stress and not rest' --timeout=900 tests/protocol/test_cut_waiting.py",
            "tests/protocol/test_cut_rules.py::test_every_interleaving_holds",
        ),
    ),
    "walks of lines": Check(
        "each line of a put and of a get, in each case, where a handler raises",
        "python -m pytest -q -n 2 -m stress --timeout=3600 -k any_line_does_no_harm tests/test_signals.py",
        "a share",
        ("tests/test_signals.py::test_an_exception_at_any_line_does_no_harm_in_any_case",),
    ),
    "walks of instructions": Check(
        "each instruction of an act, where a handler raises, puts, gets or forks",
        "python -m pytest -q -n 2 -m stress --timeout=3600 -k any_instruction_of_an_act tests/test_instructions.py",
        "some",
        ("test_a_handler_at_some_instructions_of_an_act_does_no_harm",),
    ),
    "walks of the dead": Check(
        "each line of each act in the crash table, at which a process is killed, or stopped",
        "python -m pytest -q -n 2 -m stress --timeout=3600 -k at_each_line tests/test_crash_table.py",
        "some",
        ("test_kill_and_stop_at_some_lines",),
    ),
    "power cuts": Check(
        "each disk that a power cut may leave",
        "python -m pytest -q -n 2 -m stress --timeout=3600 -k after_any_step tests/test_durability.py",
        "a share",
        ("tests/test_durability.py",),
    ),
    "timeouts": Check(
        "2,000 waits of each kind beside stopped, busy and killed peers, and the machine's own sleeps",
        "python -m compat.timeouts --count 2000",
        "40 of each",
        ("test_no_wait_returns_too_early_or_much_later_than_a_sleep", "test_what_others_do_is_noticed"),
    ),
    "damage": Check(
        "20,000 damaged batch files and 20,000 damaged journals, and as many together where records have no checks",
        "python -m pytest -q -n 2 -m stress --timeout=3600 tests/test_damage.py",
        "hundreds",
        (
            "test_damaged_batch_files_give_no_item_that_was_not_put",
            "test_a_damaged_journal_gives_no_item_that_was_not_put",
        ),
    ),
    "figures": Check(
        "every figure that a table tells, measured anew by its own command: within its spread, times 1.3",
        "python -m compat.figures again",
        "that each command gives its figures, of a thousandth",
        ("pytest -q -n 3 -m rest", "test_each_measurement_gives_all_its_figures"),
    ),
    "load": Check(
        "200 processes, ten million items that pass or wait, 1,000 queues, 100,000 one after another",
        "python -m compat.load processes waiting in_turn queues cycles",
        "a hundredth",
        ("python -m compat.load --scale 0.01",),
    ),
    "leftovers": Check(
        "ten million batch files that dead producers have left in one folder",
        "python -m compat.load leftovers",
        "a hundredth",
        ("python -m compat.load --scale 0.01",),
    ),
    "small disk": Check(
        "a gigabyte flows through a disk of 64 MB",
        "python -m pytest -q -n 0 -m 'stress and not rest' tests/test_space.py",
        "200 MB",
        ("test_200_megabytes_flow_through_a_disk_of_64",),
    ),
    "interpreters": Check(
        "the quick suite and that of commands, places and shortages on each other version of Python that is there, and "
        "here as on other systems",
        "python -m compat.interpreters --more",
        "on the oldest and one more, those of the contract, of the quick one a share",
        ("python -m compat.interpreters",),
    ),
    "CPython's queue tests": Check(
        "CPython's own tests of queues, with each start method, on each version that is there, and with its own queue",
        "python -m pytest -q -n 1 -m 'stress and not rest' --timeout=3600 tests/test_cpython_suite.py",
        "one start method of each version",
        ("python -m compat.interpreters", "test_turboqueue_passes_the_queue_tests_of_this_interpreter"),
    ),
    "CPython's whole suites": Check(
        "CPython's tests of logging, executors and multiprocessing under `run` come to the same as without",
        "python -m compat.whole_suites",
        "those of logging",
        ("python -m compat.whole_suites test_logging",),
    ),
    "programs": Check(
        "programs of others come to the same with our queues",
        "python -m compat.programs",
        "all",
        ("python -W ignore -m compat.programs",),
    ),
    "big programs": Check(
        "the same of programs that take gigabytes to install, or long",
        "python -m compat.programs --big",
        "none",
        (),
    ),
    "original": Check(
        "100,000 events in one folder with turbo-queue 0.8.0: from it, to it, both",
        "python -m compat.original_exchange --events 100000",
        "6,000",
        ("test_events_are_exchanged_with_the_original",),
    ),
    "Kafka": Check(
        "100,000 events through workers and a program that are killed, and two machines, with a real broker",
        "python -m pytest -q -n 0 -m stress --timeout=3600 tests/test_kafka.py",
        "a share",
        ("pytest -q -n 2 -m stress tests/test_legacy.py tests/test_kafka.py",),
    ),
}


def rows() -> list[dict[str, str]]:
    """What was found so far, the oldest first."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def newest() -> dict[str, dict[str, str]]:
    """Of each check that has run, what was found last."""
    return {row["check"]: row for row in rows()}


def table() -> str:
    """The checks, each with its newest result, as a table of a page."""
    found = newest()
    lines = ["| check | at full size | in `.ci/run` | last at full size |", "|---|---|---|---|"]
    for name, check in CHECKS.items():
        row = found.get(name)
        last = "not yet" if row is None else f"{row['date']}, {row['commit']}, {row['seconds']} s: {told(row)}"
        if row is not None and row["command"] != check.command:
            last += f"; then it was `{row['command']}`"
        lines.append(f"| {name} | {check.what} | {': '.join(filter(None, [check.in_ci, by(check)]))} | {last} |")
    return "\n".join(lines)


def by(check: Check) -> str:
    """What runs it in ``.ci/run``, as code."""
    return ", ".join(f"`{one}`" for one in check.by)


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


def age(of: str) -> str:
    """How far from what is checked out that commit is.  Raises ``CalledProcessError`` where there is none."""
    since, ours = (asked("rev-list", "--count", f"{of}..HEAD", *where).strip() for where in ((), ("--", "tqshim")))
    return f"{since} commits ago, {ours} of them in tqshim/"


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
        writer.writerow([name, today, at, seconds, done.returncode, CHECKS[name].command, said[-1] if said else ""])
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which checks")
    parser.add_argument("--all", action="store_true", help="every one, for hours")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--age", action="store_true", help="say how long ago each has run, in commits, and run nothing")
    given = parser.parse_args()
    unknown = set(given.names) - set(CHECKS)
    if unknown:
        parser.error(f"no such check: {', '.join(sorted(unknown))}; there are: {', '.join(CHECKS)}")
    if given.age:
        found = newest()
        print("\n".join(f"{name}: {age(found[name]['commit']) if name in found else 'not yet'}" for name in CHECKS))
        return 0
    if given.list or not (given.names or given.all):
        print("\n".join(f"{name}: {check.command}" for name, check in CHECKS.items()))
        return 0
    at = commit()
    return max([run(name, at) for name in (CHECKS if given.all else given.names)])


if __name__ == "__main__":
    sys.exit(main())
