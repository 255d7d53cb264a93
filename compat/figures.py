"""The figures of README and docs/performance.md: kept in docs/figures.json, told in tables, compared with new ones.

    python -m tqshim bench --json > new.json
    python -m tqshim bench --programs --json > programs.json
    python -m compat.original_speed --json > original.json
    python -m compat.figures keep new.json programs.json original.json   # then: python tests/documents.py
    python -m compat.figures compare new.json programs.json              # exits with 1 where one is out of what is told
    python -m compat.figures again                                       # measures all anew, by its own commands

The file keeps of each measurement the median, the least and the greatest of its figures and of their ratios within a
round, the commit, the day, the command and the machine.  A table tells medians, and the spread of ratios, too.  Between
two runs an hour apart this machine's own speed differs: a new ratio counts as the same within the spread, widened by
``DRIFT``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from compat.original_speed import BATCHED, CASES, OURS, THEIRS
from tqshim.bench.kinds import AT_PATH, DURABLE, FASTER_FIFO, FILES, KEYED, KINDS, STDLIB, TURBO, many
from tqshim.bench.measurements import PLAIN, PLAIN_BOUNDS
from tqshim.bench.runs import TASK_CONSUMERS

ROOT: Final = Path(__file__).resolve().parent.parent
KEPT: Final = ROOT / "docs" / "figures.json"
DRIFT: Final = 1.3
"""A figure of one run is up to so many times that of another, as docs/performance.md says."""
DIGITS: Final = 4
"""Of each number that is kept."""
NONE: Final = "\N{EN DASH}"

Figures = dict[str, Any]
"""By measurement: where its figures come from, and ``metrics``: by name, by kind, what is kept."""


# -- keeping


def kept() -> Figures:
    found: Figures = json.loads(KEPT.read_text("utf-8"))
    return found


def taken(document: dict[str, Any], commit: str, day: str) -> Figures:
    """What the file keeps of a document that ``bench --json`` or ``original_speed --json`` has printed.

    Raises ``SystemExit`` if a run had failed."""
    machine = document["machine"]
    source = {
        "commit": commit,
        "day": day,
        "command": document["command"].replace(" --json", ""),
        "rounds": document["rounds"],
        "machine": f"{machine['processors']} processors, {machine['python']}, {machine['kernel']}",
    }
    found = {}
    for result in document["measurements"] if "measurements" in document else _of_cases(document["cases"]):
        for kind, failure in result["failures"].items():
            raise SystemExit(f"figures: {result['name']} failed for {kind}: {failure}")
        metrics = {
            name: {kind: _numbers(figure) for kind, figure in metric["kinds"].items()}
            for name, metric in result["metrics"].items()
        }
        found[result["name"]] = {**source, "metrics": metrics}
    if not found:
        raise SystemExit("figures: nothing was measured")
    return found


def _of_cases(cases: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What ``original_speed`` has measured, in the form of ``bench``."""
    for name, case in cases.items():
        failures = {THEIRS: case["failure"]} if "failure" in case else {}
        kinds = {
            kind: {**figure, "ratios": {} if kind == THEIRS else {THEIRS: figure["ratio"]}}
            for kind, figure in case.items()
            if kind != "failure"
        }
        yield {"name": f"{ORIGINAL}/{name}", "metrics": {"rate": {"kinds": kinds}}, "failures": failures}


def _numbers(figure: dict[str, Any]) -> dict[str, Any]:
    """Median, least and greatest of figures, and of their ratios; ``None`` stands for infinity."""
    told: dict[str, Any] = {name: _rounded(figure[name]) for name in ("median", "min", "max")}
    ratios = {other: _numbers(ratio) for other, ratio in figure.get("ratios", {}).items()}
    return {**told, "ratios": ratios} if ratios else told


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


# -- telling


class Row(NamedTuple):
    """One row of a table: where its figures stand, and how the row tells them."""

    measurement: str
    metric: str
    label: str
    unit: str = ""
    factor: float = 1.0
    decimals: int = 0


def _shape(producers: int, consumers: int, group: str = "bounded", beside: str = "") -> Row:
    label = f"{producers} \N{MULTIPLICATION SIGN} {consumers}{beside}"
    return Row(f"{group}/{producers}x{consumers}", "rate", label, "", 1e-3)


MAIN: Final = (
    *(_shape(*shape) for shape in ((1, 1), (1, 10), (10, 1), (3, 20), (20, 3), (20, 20))),
    *(_shape(*shape, "unbounded", ", unbounded") for shape in ((1, 1), (3, 20))),
    *(_shape(*shape, f"bound-{bound}", f", `maxsize={bound}`") for bound in (1000, 10) for shape in ((1, 1), (3, 20))),
    Row("roundtrip", "p50", "round trip, p50", "µs"),
    Row("roundtrip", "p99", "round trip, p99", "µs"),
    Row("roundtrip-busy", "p50", "the same beside three busy processes, p50", "µs"),
    Row("bytes/100KB", "rate", "`bytes` of 100 KB", "MB/s", 1e-6),
    Row("bytes/1MB", "rate", "`bytes` of 1 MB", "MB/s", 1e-6),
    Row("bytes/10MB", "rate", "`bytes` of 10 MB", "MB/s", 1e-6),
    Row("numpy/1MB", "rate", "numpy arrays of 1 MB", "MB/s", 1e-6),
    Row("numpy/10MB", "rate", "numpy arrays of 10 MB", "MB/s", 1e-6),
    Row("idle", "time", "idle: 40 consumers, % of a core", "", 1.0, 1),
    Row("making", "used", "making, using once and closing a queue", "µs"),
    Row("exit", "time", "exit after unread items", "ms", 1e3),
)
COSTS: Final = (
    Row("costs/put", "time", "put, one by one", "µs", 1.0, 1),
    Row("costs/threads", "time", "put, 16 threads at once: they share their fsyncs", "µs", 1.0, 1),
    Row("costs/put_many", "time", "`put_many` of 100", "µs", 1.0, 1),
    Row("costs/get", "time", "get, one by one", "µs", 1.0, 1),
    Row("costs/1MB", "time", "put and get of 1 MB", "µs"),
)
TASKS: Final = (("100us", "100 µs"), ("1ms", "1 ms"), ("10ms", "10 ms"))
PROGRAMS: Final = {"parse_stdlib": "`parse_stdlib`: the main job, tasks of some 20 ms"}
"""Those of which more is told than their names."""
POOL: Final = "task_pool"
ORIGINAL: Final = "original"
"""The group of what ``compat.original_speed`` measures."""


def source(figures: Figures, names: Iterable[str]) -> str:
    """Where the figures of these measurements come from."""
    told: dict[str, None] = {}
    for name in names:
        if name in figures:
            one = figures[name]
            told[f"`{one['command']}`, commit `{one['commit']}`, {one['day']}"] = None
    return "; ".join(told)


def _told(value: float | None, row: Row) -> str:
    if value is None:
        return "never"
    value *= row.factor
    return f"{value:,.{row.decimals if value < 100 else 0}f} {row.unit}".strip()


def two_digits(ratio: float) -> str:
    return f"{ratio:#.2g}".rstrip(".") if ratio < 99.5 else f"{ratio:,.0f}"


def _spread(ratio: dict[str, float]) -> str:
    if "min" not in ratio:  # in a table that was older than its file
        return two_digits(ratio["median"])
    return f"{two_digits(ratio['median'])}: {two_digits(ratio['min'])}\N{EN DASH}{two_digits(ratio['max'])}"


def _cell(figures: Figures, row: Row, kind: str, base: str = STDLIB) -> str:
    figure = figures[row.measurement]["metrics"][row.metric].get(kind)
    if figure is None:
        return NONE
    ratio = figure.get("ratios", {}).get(base)
    told = _told(figure["median"], row)
    return f"{told} ({_spread(ratio)})" if ratio else told


def _over(figures: Figures, row: Row, kind: str) -> str:
    figure = figures[row.measurement]["metrics"][row.metric].get(kind, {})
    ratio = figure.get("ratios", {}).get(KINDS[kind].rival)
    return _spread(ratio) if ratio else NONE


def main_table(figures: Figures) -> Iterator[str]:
    """``TurboQueue`` beside the standard library's queue, and faster-fifo."""
    yield f"Thousand items a second where nothing else is said: medians, in brackets the ratio to `{STDLIB}` in the"
    yield f"same round with its least and greatest. {source(figures, (row.measurement for row in MAIN))}.\n"
    batch = f"in batches of {KINDS[many(TURBO)].batch}: "
    head = ("what", f"`{STDLIB}`", FASTER_FIFO, f"`{TURBO}`", "over faster-fifo", f"{batch}{FASTER_FIFO}")
    yield from _head(*head, f"`{TURBO}`", "over faster-fifo")
    for row in MAIN:
        if row.measurement in figures:
            cells = [_cell(figures, row, kind) for kind in (STDLIB, FASTER_FIFO, TURBO)]
            cells += [_over(figures, row, TURBO)]
            cells += [_cell(figures, row, kind) for kind in (many(FASTER_FIFO), many(TURBO))]
            yield _line(row.label, *cells, _over(figures, row, many(TURBO)))


def plain_table(figures: Figures) -> Iterator[str]:
    """``TurboQueue`` beside the standard library's queue, without timeouts: by bound, producers and consumers."""
    shapes = [f"{producers}x{consumers}" for producers, consumers, _ in PLAIN]
    groups = {"plain": "none", **{f"plain-{bound}": f"{bound:,}" for bound in reversed(PLAIN_BOUNDS)}}
    names = [f"{group}/{shape}" for group in groups for shape in shapes]
    yield f"Thousand items a second through a `{TURBO}`, and the ratio to `{STDLIB}` in the same round with its least"
    yield f"and greatest: `put(item)` and `get()`, one by one. {source(figures, names)}.\n"
    yield from _head("`maxsize`", *(shape.replace("x", " \N{MULTIPLICATION SIGN} ") for shape in shapes))
    for group, bound in groups.items():
        rows = [Row(f"{group}/{shape}", "rate", "", "", 1e-3) for shape in shapes]
        yield _line(bound, *(_cell(figures, row, TURBO) if row.measurement in figures else NONE for row in rows))


def program_names(figures: Figures) -> list[str]:
    """Programs, and behind them the pools."""
    return sorted((name for name, one in figures.items() if "wall" in one["metrics"]), key=_is_pool)


def _is_pool(name: str) -> bool:
    return name.startswith(POOL)


def programs_table(figures: Figures) -> Iterator[str]:
    """Whole programs, and a pool with tasks of several lengths."""
    names = program_names(figures)
    yield "Seconds from start to end: medians, and the ratio in the same round with its least and greatest; above 1,"
    yield f"`TurboQueue` is slower. {source(figures, names)}.\n"
    yield from _head("program", f"`{STDLIB}`", f"`{TURBO}`", "ratio", "processor time, ratio")
    for name in names:
        metrics = figures[name]["metrics"]
        cells = [f"{metrics['wall'][kind]['median']:.2f}" for kind in (STDLIB, TURBO)]
        cells += [_spread(metrics[metric][TURBO]["ratios"][STDLIB]) for metric in ("wall", "processor")]
        yield _line(program(name), *cells)


def program(name: str) -> str:
    if not name.startswith(f"{POOL}/"):
        return PROGRAMS.get(name, f"`{name}`")
    _, workers, length = name.split("/")
    return f"`{POOL}`: {workers} workers, tasks of {length.replace('us', ' µs').replace('ms', ' ms')}"


def tasks_table(figures: Figures) -> Iterator[str]:
    """What ``get`` costs beside tasks."""
    yield "Processor time in `get` for each item, µs, and the ratio in the same round with its least and greatest."
    yield f"{source(figures, (f'tasks/{length}' for length, _ in TASKS))}.\n"
    yield from _head("a task takes", "consumers", f"`{STDLIB}`", f"`{TURBO}`")
    for length, label in TASKS:
        for consumers in TASK_CONSUMERS:
            row = Row(f"tasks/{length}", f"{consumers} consumers", "")
            if row.measurement in figures:
                yield _line(label, str(consumers), *(_cell(figures, row, kind) for kind in (STDLIB, TURBO)))


def costs_table(figures: Figures, kind: str) -> Iterator[str]:
    """What a durable queue, or one with a key, costs beside one with neither."""
    yield "Each item: medians, and the ratio in the same round with its least and greatest; on the disk of the"
    yield f"temporary folder (`TMPDIR`). {source(figures, (row.measurement for row in COSTS))}.\n"
    yield from _head("what", "neither", kind)
    for row in COSTS:
        if row.measurement in figures:
            label = row.label if kind == DURABLE else row.label.partition(":")[0]
            yield _line(label, _cell(figures, row, AT_PATH), _cell(figures, row, kind, AT_PATH))
    if kind == DURABLE and COSTS[0].measurement in figures:
        label = "two appends to files, each on the disk before the next"
        yield _line(label, NONE, _cell(figures, COSTS[0], FILES, FILES))


def original_table(figures: Figures) -> Iterator[str]:
    """Beside turbo-queue 0.8.0."""
    names = {name: f"{ORIGINAL}/{name}" for name in CASES}
    yield "Thousand events a second: medians of rounds in which the kinds took turns, and in brackets the ratio to"
    yield "0.8.0 in the same round, with its least and greatest where it is told. JSON objects, batches of 1,000, five"
    yield "of them ready at most, as in 0.8.0's quickstart; the producers look for room after each event, as that does,"
    yield f"or after each batch; `{TURBO}` moves 1,000 objects a call: {source(figures, names.values())}.\n"
    yield from _head(
        "producers \N{MULTIPLICATION SIGN} consumers", "bytes", "looks after", "0.8.0", "`turbo_queue`", f"`{TURBO}`"
    )
    for case, name in names.items():
        producers, consumers, size, loop = CASES[case]
        row = Row(name, "rate", f"{producers} \N{MULTIPLICATION SIGN} {consumers}", "", 1e-3)
        if name in figures:
            cells = [_cell(figures, row, kind, THEIRS) for kind in (THEIRS, OURS, BATCHED)]
            yield _line(row.label, f"{size:,}", "each batch" if loop else "each event", *cells)


GAINS, NOTHING = 1.2, 0.95
"""How many times as fast it must be at least to count as a gain, and not as a loss."""
_RATE, _TIME = 1, -1
SHORT: Final = (
    ("small items, 1 producer, 1 consumer", "plain/1x1", "rate", TURBO, _RATE),
    ("small items, 10 producers, 1 consumer", "plain/10x1", "rate", TURBO, _RATE),
    ("round trips", "roundtrip", "p50", TURBO, _TIME),
    ("arrays of 10 MB", "numpy/10MB", "rate", TURBO, _RATE),
    ("batches of 100, 3 \N{MULTIPLICATION SIGN} 20 processes", "bounded/3x20", "rate", many(TURBO), _RATE),
    ("3 \N{MULTIPLICATION SIGN} 20 processes, item by item", "plain/3x20", "rate", TURBO, _RATE),
    ("the main job, 20 ms a task", "parse_stdlib", "wall", TURBO, _TIME),
    ("pool of 2, empty tasks", "task_pool/2/0us", "wall", TURBO, _TIME),
    ("pool of 2, tasks of 100 µs", "task_pool/2/100us", "wall", TURBO, _TIME),
    ("pool of 8, tasks of 1 ms", "task_pool/8/1ms", "wall", TURBO, _TIME),
    ("a round trip on a busy machine", "roundtrip-busy", "p50", TURBO, _TIME),
    ("a program of a tenth of a second", "pool_initializer", "wall", TURBO, _TIME),
    ("`maxsize=10`, 1 \N{MULTIPLICATION SIGN} 1", "plain-10/1x1", "rate", TURBO, _RATE),
    ("`maxsize=10`, 3 \N{MULTIPLICATION SIGN} 20", "plain-10/3x20", "rate", TURBO, _RATE),
)


def short_table(figures: Figures) -> Iterator[str]:
    """How many times as fast ``TurboQueue`` is: where it gains, where it costs nothing, where it is slower."""
    columns: tuple[list[tuple[float, str]], ...] = ([], [], [])
    for label, name, metric, kind, power in SHORT:
        ratio = figures[name]["metrics"][metric][kind]["ratios"][STDLIB]["median"] ** power
        columns[0 if ratio >= GAINS else 1 if ratio >= NOTHING else 2].append((-ratio, label))
    machines, days = ({figures[row[1]][what] for row in SHORT} for what in ("machine", "day"))
    yield f"How many times as fast as `{STDLIB}`, on {'; '.join(sorted(machines))}"
    yield f"(`python -m tqshim bench`, `--programs`; {' to '.join(sorted({min(days), max(days)}))}):\n"
    yield from _head("it gains", "", "it costs nothing", "", "it is slower", "")
    for number in range(max(map(len, columns))):
        cells = []
        for column in columns:
            ratio, label = sorted(column)[number] if number < len(column) else (0.0, "")
            cells += [label, two_digits(-ratio) if label else ""]
        yield _line(*cells)


def _head(*titles: str) -> Iterator[str]:
    yield _line(*titles)
    yield "|" + "---|" * len(titles)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


TABLES: Final = {
    "figures": main_table,
    "figures of plain calls": plain_table,
    "figures of programs": programs_table,
    "figures of tasks": tasks_table,
    "figures of durable queues": lambda figures: costs_table(figures, DURABLE),
    "figures of keys": lambda figures: costs_table(figures, KEYED),
    "figures in short": short_table,
    "original figures": original_table,
}
"""By the marker of the place where each stands."""


# -- comparing


def differences(former: Figures, new: Figures) -> Iterator[str]:
    """The ratios that are out of what the pages tell; of a metric without ratios, the figures."""
    for name, one in new.items():
        for metric, kinds in one["metrics"].items():
            has_ratios = any("ratios" in figure for figure in kinds.values())
            for kind, figure in kinds.items():
                known = former.get(name, {}).get("metrics", {}).get(metric, {}).get(kind)
                if known is None:
                    yield f"{name}, {metric}, {kind}: no figure is told"
                    continue
                if not (has_ratios or _within(figure, known)):
                    yield f"{name}, {metric}, {kind}: {figure['median']}, told {known['median']}"
                for other, ratio in figure.get("ratios", {}).items():
                    told = known.get("ratios", {}).get(other)
                    if told and not _within(ratio, told):
                        yield f"{name}, {metric}, {kind} over {other}: {ratio['median']}, told {_spread(told)}"


def _within(new: dict[str, Any], told: dict[str, Any]) -> bool:
    """Whether the new median is in the spread that is told, widened; ``None``, for never, must stay so."""
    median, known = new["median"], told["median"]
    if median is None or known is None:
        return bool(median is known)
    return bool(told.get("min", known) / DRIFT <= median <= (told.get("max") or known) * DRIFT)


def again(former: Figures, commit: str, day: str) -> Figures:
    """All that the file keeps, measured anew, each measurement by its own command.

    Raises ``SystemExit`` if one fails."""
    new: Figures = {}
    for command in dict.fromkeys(one["command"] for one in former.values()):
        print(command, flush=True)
        words = [sys.executable, *shlex.split(command)[1:], "--json"]
        done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"figures: {command} has ended with {done.returncode}")
        found = taken(json.loads(done.stdout), commit, day)
        new.update({name: one for name, one in found.items() if former.get(name, {}).get("command") == command})
    for name in former.keys() - new.keys():
        raise SystemExit(f"figures: {former[name]['command']} has not measured {name}")
    return new


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep figures, or compare new ones with the kept ones."""
    parser = argparse.ArgumentParser(prog="python -m compat.figures", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("act", choices=("keep", "compare", "again"))
    parser.add_argument("documents", nargs="*", metavar="FILE", help="what python -m tqshim bench --json has printed")
    given = parser.parse_args(arguments)
    if (given.act == "again") == bool(given.documents):
        parser.error("keep and compare need files; again takes none, for it measures")
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    day = datetime.date.today().isoformat()
    former = kept() if KEPT.exists() else {}
    new: Figures = again(former, commit, day) if given.act == "again" else {}
    for path in given.documents:
        new.update(taken(json.loads(Path(path).read_text("utf-8")), commit, day))
    if given.act != "keep":
        found = list(differences(former, new))
        print("\n".join(found))
        print(f"{len(new)} measurements: {f'{len(found)} figures are out of' if found else 'each within'} what is told")
        return 1 if found else 0
    KEPT.write_text(json.dumps({**former, **new}, indent=1) + "\n", "utf-8")
    print(f"{len(new)} measurements are kept; python tests/documents.py copies them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
