"""``python -m tqshim bench``: TurboQueue beside the standard library's queue, and faster-fifo if it is installed.

Lives here: the command's options, progress and interrupts, and the removal of what runs have left.

Invariant: when the command ends in a way that it can notice, none of its processes and none of its queues is left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from tqshim.bench import chart, machine, programs, report, rounds, workers, workloads
from tqshim.bench.crew import ENDING, end_all
from tqshim.bench.kinds import BATCH, KINDS, usable
from tqshim.bench.measurements import Level, Measurement, measurements
from tqshim.bench.runs import Setting
from tqshim.storage.places import anonymous_root, sweep

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "positive", "run", "say"]

SUMMARY: Final = "Measure TurboQueue beside multiprocessing.Queue and faster-fifo on this machine."
EXAMPLE: Final = """\
  python -m tqshim bench                                  # two minutes: progress, then tables
  python -m tqshim bench --quick                          # a first look, in a quarter of a minute
  python -m tqshim bench --only bounded --only idle       # some of it
  python -m tqshim bench --programs                       # whole programs, and seconds against task length
  python -m tqshim bench --full --json > figures.json     # all of it with full counts, for programs
  python -m tqshim bench --plot throughput.svg            # throughput over the number of consumers"""

WITHIN: Final = {Level.QUICK: 15.0, Level.DEFAULT: 120.0, Level.FULL: 7200.0}
"""Seconds after which no further run begins."""
LIMIT: Final = {Level.QUICK: 15.0, Level.DEFAULT: 30.0, Level.FULL: 600.0}
"""Seconds after which a run counts as stuck."""
INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as shells expect it, and after the other signals that ask to end."""


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    listed = list(measurements())
    groups = sorted({one.name.partition("/")[0] for one in listed if "/" in one.name})
    parser.add_argument(
        "--programs",
        nargs="?",
        const=programs.FOLDER,
        metavar="FOLDER",
        help="measure whole programs instead: the pairs NAME_mp.py and NAME_turbo.py in a folder, which differ in the"
        " import alone (default: the ones that come with the source, in compat/legacy of a checkout)",
    )
    parser.add_argument("--quick", action="store_true", help="a few measurements, a quarter of a minute")
    parser.add_argument("--full", action="store_true", help="every measurement with its full counts: an hour or more")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"a measurement or group of them; repeatable. Groups: {', '.join(groups)}. Measurements:"
        f" {', '.join(one.name for one in listed)}",
    )
    parser.add_argument(
        "--kind", action="append", choices=list(KINDS), help=f"a kind of queue (/many: batches of {BATCH}); repeatable"
    )
    parser.add_argument("--rounds", type=_count, default=3, help="how often the kinds take their turn (default: 3)")
    parser.add_argument(
        "--scale", type=positive, help="share of the full counts, for all measurements; each has its own"
    )
    quick, normal, full = (f"{WITHIN[level]:g}" for level in (Level.QUICK, Level.DEFAULT, Level.FULL))
    parser.add_argument(
        "--within",
        type=positive,
        metavar="SECONDS",
        help=f"no run begins later (default: {normal}; with --quick {quick}, with --full {full})",
    )
    parser.add_argument("--limit", type=positive, metavar="SECONDS", help="a run that lasts longer has failed")
    methods = multiprocessing.get_all_start_methods()
    parser.add_argument("--start-method", choices=methods, help="how processes are started (default: the system's)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw throughput over consumers (extra: tqshim[plot])")


def run(options: argparse.Namespace) -> int:
    """Measure and print.  Exit status: 0; 1 where a run failed, or a kind had no turn before the time was up; 2 where
    nothing can be run; 130 if interrupted."""
    problem = _problem(options)
    if problem:
        print(f"python -m tqshim bench: {problem}", file=sys.stderr)
        return 2
    others = multiprocessing.active_children()
    try:
        with _signals_interrupt() as check:
            return _measure(options, check)
    except KeyboardInterrupt:
        pass
    finally:
        end_all(others)
        sweep(anonymous_root(), ())
    say("interrupted: its processes are ended, its queues removed\n")
    return INTERRUPTED


def _problem(options: argparse.Namespace) -> str:
    """Return what is wrong with the options; an empty text: nothing is."""
    if options.quick and options.full:
        return "--quick and --full exclude each other; give one of them"
    if options.programs and options.plot:
        return "--plot draws throughput, which --programs does not measure; give one of them"
    problem = programs.why_not(options.programs) if options.programs else ""
    if problem:
        return problem
    listed = _listed(options)
    for name in options.only or ():
        matching = [one for one in listed if one.is_called(name)]
        if not matching:
            return (
                f"no measurement is called {name}; choose of {' '.join(one.name for one in listed)}, or a group of them"
            )
        missing = {one.module for one in matching if not one.possible()}
        if missing:
            return f"{name} needs {' and '.join(missing)}, which is not installed; pip install {' '.join(missing)}"
    problem = _problem_of_kinds(options)
    if problem:
        return problem
    return chart.why_not(options.plot) if options.plot else ""


def _problem_of_kinds(options: argparse.Namespace) -> str:
    """Return why nothing would be measured of a kind that was given, or of those kinds for a name that was given; an
    empty text: something is measured of each."""
    if not options.kind:
        return ""
    absent = [kind for kind in options.kind if not usable(KINDS[kind])]
    if absent:
        modules = " ".join(dict.fromkeys(KINDS[kind].module for kind in absent))
        return f"{' '.join(absent)}: {modules} is not installed; leave --kind {absent[0]} out, or install it"
    chosen = _chosen(options)
    for name in options.only or ():
        its_kinds = {kind: None for one in chosen if one.is_called(name) for kind in one.kinds}
        if its_kinds.keys().isdisjoint(options.kind):
            return f"{name} does not measure {' '.join(options.kind)}; choose of {' '.join(its_kinds)}"
    for kind in options.kind:
        if not any(kind in one.kinds for one in chosen):
            names = " ".join(one.name for one in _listed(options) if kind in one.kinds)
            return f"none of these measures {kind}; give --only one of {names}"
    return ""


def _level(options: argparse.Namespace) -> Level:
    return Level.QUICK if options.quick else Level.FULL if options.full else Level.DEFAULT


def _listed(options: argparse.Namespace) -> list[Measurement]:
    """Return all that can be measured: the whole programs with ``--programs``, else the queues."""
    if options.programs:
        return list(programs.measurements(options.programs, options.start_method))
    return list(measurements())


def _chosen(options: argparse.Namespace) -> list[Measurement]:
    """Return the measurements that these options ask for."""
    names = list(options.only or ())
    if options.plot:
        names.append(chart.GROUP)
    level = _level(options)
    return [
        one
        for one in _listed(options)
        if one.possible() and (any(map(one.is_called, names)) if names else one.level <= level)
    ]


def _measure(options: argparse.Namespace, check: Callable[[], None]) -> int:
    """Take the measurements and print them; return the exit status.  ``check`` is called before each run."""

    def progress(text: str) -> None:
        check()
        say(text)

    level = _level(options)
    chosen = _chosen(options)
    wanted = [kind for kind in KINDS.values() if not options.kind or kind.name in options.kind]
    present = [kind for kind in wanted if usable(kind)]
    kinds = [[kind for kind in present if kind.name in one.kinds] for one in chosen]
    context = multiprocessing.get_context(options.start_method)
    if context.get_start_method() == "forkserver":
        # Without this, each of hundreds of processes would import all of these modules anew.
        context.set_forkserver_preload([workloads.__name__, workers.__name__, *{kind.module for kind in present}])
    limit = options.limit or LIMIT[level]
    all_runs = [
        rounds.Runs(one, its_kinds, Setting(context, options.scale or one.share(level), limit))
        for one, its_kinds in zip(chosen, kinds)
    ]
    document: dict[str, Any] = {
        "schema": rounds.SCHEMA,
        "command": shlex.join(["python", "-m", "tqshim", *sys.argv[1:]]),
        "machine": machine.describe(context.get_start_method(), ("faster-fifo", "numpy")),
        "rounds": options.rounds,
        "within": options.within or WITHIN[level],
        "skipped": [kind.name for kind in wanted if kind not in present],
    }
    began = time.monotonic()
    document["measurements"] = rounds.take(all_runs, options.rounds, document["within"], progress)
    document["seconds"] = round(time.monotonic() - began, 1)
    if sys.stderr.isatty():
        say("")
    if options.json:
        json.dump(report.without_infinity(document), sys.stdout, indent=1, allow_nan=False)
        print()
    else:
        print("\n".join(report.head(document)))
        if options.programs:
            print("\n".join(report.side_by_side(document["measurements"])))
        else:
            for one, result in zip(chosen, document["measurements"]):
                print("\n".join(report.table(one, result)))
        print(f"{document['seconds']:.0f} s in all")
    if options.plot:
        chart.draw(options.plot, document)
    failed = any(result["failures"] for result in document["measurements"])
    return 1 if failed else 0


def say(text: str) -> None:
    """Show progress on stderr, each line in place of the last one on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[Callable[[], None]]:
    """Let the first signal that asks to end raise ``KeyboardInterrupt``.  Later ones are ignored: the block must be
    able to end what it has begun.

    The exception may be swallowed, as any exception is in a ``__del__``.  So the function that this yields raises
    ``KeyboardInterrupt`` again, and so does the end of the block; the swallowed one is not reported."""
    interrupted = False
    tell = sys.unraisablehook

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt

    def swallowed(unraisable: Any) -> None:
        if not (interrupted and issubclass(unraisable.exc_type, KeyboardInterrupt)):
            tell(unraisable)

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    sys.unraisablehook = swallowed
    try:
        yield check
        check()
    finally:
        sys.unraisablehook = tell
        for number, handler in before.items():
            signal.signal(number, handler)
