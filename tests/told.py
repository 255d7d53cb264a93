"""The sentences of the pages that tell figures, and where each figure comes from.

Lives here: the sentences, and what makes a number a figure.  Not here: the tables, which ``compat.figures`` makes, and
the tests (``test_figures``).

A figure of ``TOLD`` comes from docs/figures.json, rounded as in the sentence.  A figure of ``PRINTED`` is not kept
there: its sentence names the command and the commit.  A number of ``SET`` was not measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from documents import PAGES

from compat.figures import ORIGINAL, TASKS, Figures
from compat.original_speed import CASES, OURS, THEIRS
from tqshim.bench.kinds import STDLIB, TURBO, many
from tqshim.bench.runs import TASK_CONSUMERS

README: Final = "README.md"
PERFORMANCE: Final = "docs/performance.md"
PROTOCOL: Final = "docs/protocol.md"
ORIGINALS: Final = "docs/turbo-queue.md"
READ: Final = (README, PERFORMANCE, "docs/comparison.md", ORIGINALS, PROTOCOL)
"""Pages whose every figure is known."""

WORDS: Final = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_NUMBER: Final = rf"(?<![\w.,])(?:\d[\d,]*(?:\.\d+)?|{'|'.join(WORDS)})"
FIGURE: Final = re.compile(
    rf"{_NUMBER}\s(?:times|%|thousand|[mµ]?s|(?:milli|micro)?seconds?|[KMG]B/s|of the time|as (?:long|many|fast))"
    r"(?!\w)|(?<![\w.])\d+\.\d+|\b(?:twice|half) (?:as|of the|the time)\b"
    r"|\ba (?:third|quarter|fifth|tenth) of the time\b",
    re.IGNORECASE,
)
"""A number that says how long, how often, or how many times."""


_PLAIN: Final = {0x2013: "-", 0xD7: "x"}
"""What stands here for a dash, and for a cross."""


def flat(page: str) -> str:
    """A page on one line, without its blocks, what is copied from figures, and versions."""
    text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!-- (\w+ figures|figures[ \w]*) -->.*?<!-- /\1 -->", "", text, flags=re.DOTALL)
    text = re.sub(r"(?<=CPython )3\.\d+(?: to 3\.\d+)?|(?<=Linux )6\.\d+|(?<![\w.])3\.13t|0\.8\.0", "…", text)
    return re.sub(r"\s+", " ", text).translate(_PLAIN)


# -- where figures are from


class Told(NamedTuple):
    """A sentence, and the figures of it."""

    page: str
    sentence: str
    """Each figure in braces."""
    figures: Callable[[Figures], Sequence[float]]
    """What they are, in that order."""

    def text(self) -> str:
        return re.sub("[{}]", "", self.sentence)

    def wrong(self, kept: Figures) -> Iterator[str]:
        """What the sentence says, and what it is."""
        for said, value in zip(re.findall(r"{(.*?)}", self.sentence), self.figures(kept)):
            told = str(WORDS.get(said, said))
            if f"{value:.{len(told.partition('.')[2])}f}" != told:
                yield f"{self.text()}: {said} is {value}"


def spread(name: str, metric: str, kind: str = TURBO) -> Callable[[Figures], list[float]]:
    """The ratio to the standard library's queue: median, least, greatest."""

    def found(kept: Figures) -> list[float]:
        ratio = kept[name]["metrics"][metric][kind]["ratios"][STDLIB]
        return [ratio["median"], ratio["min"], ratio["max"]]

    return found


def ratio(name: str, metric: str, kind: str = TURBO) -> Callable[[Figures], list[float]]:
    return lambda kept: spread(name, metric, kind)(kept)[:1]


def ends(name: str, metric: str, kind: str = TURBO) -> Callable[[Figures], list[float]]:
    """The least and greatest ratio."""
    return lambda kept: spread(name, metric, kind)(kept)[1:]


def range_of(names: Sequence[str], kind: str = TURBO) -> Callable[[Figures], list[float]]:
    """The least and greatest of several ratios of rates."""
    return lambda kept: _range(ratio(name, "rate", kind)(kept)[0] for name in names)


def median(name: str, metric: str, factor: float, *kinds: str) -> Callable[[Figures], list[float]]:
    return lambda kept: [kept[name]["metrics"][metric][kind]["median"] * factor for kind in kinds or (TURBO,)]


def _range(values: Iterator[float]) -> list[float]:
    found = sorted(values)
    return [found[0], found[-1]]


def more_in_get(kept: Figures) -> list[float]:
    """Processor time that a get costs beside tasks, beyond the standard library's: the least and the most."""
    metrics = [kept[f"tasks/{length}"]["metrics"] for length, _ in TASKS]
    of_all = [one[f"{consumers} consumers"] for one in metrics for consumers in TASK_CONSUMERS]
    return _range(kinds[TURBO]["median"] - kinds[STDLIB]["median"] for kinds in of_all)


def more_of_short_programs(kept: Figures) -> list[float]:
    """Milliseconds of programs of a tenth of a second, but for the one that waits for answers."""
    of_all = {
        name: one["metrics"]["wall"] for name, one in kept.items() if "wall" in one["metrics"] and "/" not in name
    }
    short = [of_all[name] for name in of_all if of_all[name][STDLIB]["median"] < 0.1 and name != "ping_pong"]
    return _range((kinds[TURBO]["median"] - kinds[STDLIB]["median"]) * 1e3 for kinds in short)


def beside_original(kept: Figures) -> list[float]:
    of_all = [kept[f"{ORIGINAL}/{case}"]["metrics"]["rate"][OURS]["ratios"][THEIRS] for case in CASES]
    return _range(one["median"] for one in of_all)


def widths(ratios: bool) -> Callable[[Figures], list[float]]:
    """How far apart the least and the greatest are, in percents of the median: of the half, and of nine of ten."""

    def found(kept: Figures) -> list[float]:
        figures = [one for each in kept.values() for kinds in each["metrics"].values() for one in kinds.values()]
        if ratios:
            figures = [ratio for one in figures for ratio in one.get("ratios", {}).values()]
        of_all = sorted((one["max"] - one["min"]) / one["median"] * 100 for one in figures if one.get("min"))
        return [of_all[len(of_all) // 2], of_all[len(of_all) * 9 // 10]]

    return found


MANY_CONSUMERS: Final = ("bounded/1x10", "bounded/3x20", "bounded/20x20", "unbounded/3x20")
TOLD: Final = (
    Told(
        PERFORMANCE,
        "half of the figures in the tables lie, in all their rounds, within {12} % of their median, from the"
        " least to the greatest, and nine of ten within {34} %",
        widths(False),
    ),
    Told(PERFORMANCE, "half of them lie within {17} %, nine of ten within {56} %", widths(True)),
    Told(
        PERFORMANCE,
        "One producer and one consumer move {5.5} to {5.8} times as many small items a second",
        range_of(["bounded/1x1", "unbounded/1x1"]),
    ),
    Told(PERFORMANCE, "ten producers and one consumer {four} times", ratio("bounded/10x1", "rate")),
    Told(
        PERFORMANCE,
        "a trip there and back takes {0.13} of the time in the median ({0.11} to {0.15})",
        spread("roundtrip", "p50"),
    ),
    Told(PERFORMANCE, "its 99th percentile {0.22} ({0.07} to {0.5})", spread("roundtrip", "p99")),
    Told(PERFORMANCE, "arrays of 10 MB go through {nine} times as fast", ratio("numpy/10MB", "rate")),
    Told(PERFORMANCE, "ten consumers and more gain: {three} to {five} times", range_of(MANY_CONSUMERS, many(TURBO))),
    Told(
        PERFORMANCE,
        "With `maxsize=10` 3 x 20 processes move {0.48} times as many items as with the standard library ({0.45}"
        " to {0.52};",
        spread("bound-10/3x20", "rate"),
    ),
    Told(PERFORMANCE, "{23} thousand a second): they take turns", median("bound-10/3x20", "rate", 1e-3)),
    Told(PERFORMANCE, "One producer and one consumer move {2.6} times as many", ratio("bound-10/1x1", "rate")),
    Told(
        PERFORMANCE,
        "With `maxsize=1000` one producer and one consumer move {6.1} times as many",
        ratio("bound-1000/1x1", "rate"),
    ),
    Told(PERFORMANCE, "3 x 20 processes {2.4} times.", ratio("bound-1000/3x20", "rate")),
    Told(PERFORMANCE, "ten consumers and more are {2.5} to {2.9} times as fast", range_of(MANY_CONSUMERS)),
    Told(
        PERFORMANCE,
        "twenty producers and three consumers are {1.4} times as fast ({1.0} to {3.0})",
        spread("bounded/20x3", "rate"),
    ),
    Told(
        PERFORMANCE,
        "Beside three busy processes a trip there and back takes {0.59} to {1.4} times as long",
        ends("roundtrip-busy", "p50"),
    ),
    Told(
        PERFORMANCE,
        "40 that wait use {4.5} % of a processor together in their first seconds ({0.6} %)",
        median("idle", "time", 1.0, TURBO, STDLIB),
    ),
    Told(PERFORMANCE, "made, used once and closed {0.62} ({0.53})", median("making", "used", 1e-3, TURBO, STDLIB)),
    Told(PERFORMANCE, "unused {0.29} ({0.09})", median("making", "unused", 1e-3, TURBO, STDLIB)),
    Told(
        PERFORMANCE,
        "as far as this machine can tell: {1.02} of the time ({1.01} to {1.03})",
        spread("parse_stdlib", "wall"),
    ),
    Told(PERFORMANCE, "of a tenth of a second and less take {9} to {16} ms more", more_of_short_programs),
    Told(
        PERFORMANCE,
        "a get costs {10} to {128} µs more of processor time than with the standard library",
        more_in_get,
    ),
    Told(ORIGINALS, "`turbo_queue` moves {1.5} to {6} times as many events a second", beside_original),
)

PRINTED: Final = (
    (
        PERFORMANCE,
        "With 30, 60 or 120 µs of work before each put of an object of 90 attributes its loop takes 1.27, 1.13 or"
        " 1.05 times as long; the consumer has got the last item after 0.83, 0.89 or 0.95 of the time. (`python"
        " -m tqshim bench --only pace --rounds 5`, commit `09cfb39`.)",
    ),
    (
        PERFORMANCE,
        "`python -m tqshim bench --only unbounded/1x1 --rounds 5`, commit `6aba0aa`): a put takes its short way"
        " with a lock held, a get has no short way. One producer and one consumer move 1.1 times (0.96 to 1.2) as many"
        " items as with the standard library, in batches 4.4 times; with the GIL 3.7 and 5.3 times, same machine,"
        " same hour.",
    ),
    (
        PERFORMANCE,
        "`python -m compat.import_time`, commit `3706940`: a program's first queue, with one put and get, 12 (1),"
        " most of that for importing the engine; where no bytecode may be written 87 (1). A forked process's"
        " first `put` and `get` 2.0 (0.7).",
    ),
    (
        PERFORMANCE,
        "On a busier day it was 1.1 (0.98 to 1.2; the same command, `python -m tqshim bench --programs --rounds 5"
        " --within 185`, commit `6aba0aa`).",
    ),
    (
        PERFORMANCE,
        "| `leases` | 0.37 | 0.33 | - | - | | `sole` | - | - | - | 0.30 | | `reservations` | 0.11 | - | - | - | |"
        " `short_ways` | 0.29 | 0.23 | - | - | | `in_files` | - | - | 0.48 | - | | `refilling` | - | - | 0.74 | -"
        " | | `mappings` | - | - | 0.87 | - | | `spinning` | - | - | - | 0.55 | | `alone`,"
        " `short_claims`, `first_naps`, `dozing`, `yielding` | - | - | - | - | -: no difference that stood out of the"
        " spread of this machine. `TQSHIM_WITHOUT=leases python -m tqshim bench --only bounded/1x1 --only cpu/tuple"
        " --only numpy/10MB`, and so on, commit `7cab28b`; `sole`: `--only roundtrip`, commit `40b6ffc`; `refilling`,"
        " `mappings`, `spinning`: seven rounds, commit `224b338`.",
    ),
    (
        PERFORMANCE,
        "there a round trip took 32 to 44 µs, without it 65 to 97, as the message of commit `77cf5e9` says",
    ),
    (
        PERFORMANCE,
        "(`python -m tqshim bench --only pace/120us --rounds 5`, commit `a58f8c9`): an item takes 133 µs with its"
        " work, without it 150 to 153, with the standard library's queue 138 to 141",
    ),
    (
        PERFORMANCE,
        "`import tqshim` takes 2 ms more than `import multiprocessing.queues`, which it needs: `python -m"
        " compat.import_time`, commit `3706940`. The engine is imported with the first queue, in 8 to 12 ms",
    ),
    (
        PERFORMANCE,
        "on which Python takes about twice the time (a round trip of the standard library's queue 227 µs, not"
        " 117), and which other programs disturb more: half of its figures lie, in all their rounds, within "
        "33 % of their median. CPython ….7, Linux ….44-fc-v1147, commit `b2d14bc`, 2026-12-03, by"
        " the commands of the tables (`python -m compat.figures again` runs them, and compares). Of 83 measurements "
        "most gave the ratios of the tables, within their spread and the factor of 1.3 by which two runs "
        "differ. The ones below did not, or differ by a quarter and more. As many times as fast as the "
        "standard library's queue, `put(item)` and `get()` where nothing else is said: | what | tables | "
        "there | |---|---|---| | small items, 3 x 20 processes | 2.0 | 1.5 | | `maxsize=1000`, 1 x 10 | 2.8 |"
        " 1.5 | | `maxsize=100`, 1 x 1; 1 x 10; 3 x 20 | 3.3; 2.5; 1.4 | 2.5; 1.7; 1.1 | | `maxsize=10`, 1 x "
        "1; 1 x 10; 10 x 1; 3 x 20 | 2.7; 1.2; 0.92; 0.59 | 3.7; 0.80; 0.66; 0.43 | | `maxsize=2`, 1 x 10; 10"
        " x 1 | 1.9; 1.2 | 1.3; 0.83 | | `maxsize=1`, 1 x 1; 10 x 1; 3 x 20 | 7.5; 1.5; 0.87 | 5.1; 1.0; 0.96"
        " | | round trips, median | 7.7 | 5.8 | | `bytes` of 100 KB | 2.1 | 1.3 | | pool of 2, tasks of 10 µs"
        " | 1.1 | 0.86 | Whole programs of a tenth of a second take 25 to 33 ms more there.",
    ),
    (
        PROTOCOL,
        "of 1.4 million puts at random moments about it none was found late, as the message of commit `77cf5e9` says",
    ),
)
"""Sentences of figures that are not kept: page, and text."""

SET: Final = (
    (PERFORMANCE, "timeouts of 10 ms"),
    (PERFORMANCE, "between 100 µs and some milliseconds"),
    (PERFORMANCE, "tasks take 100 µs and more"),
    (PERFORMANCE, "With 120 µs the consumer dozes"),
    (PROTOCOL, "look at them for 60 µs at most"),
    (PROTOCOL, "(50 ms for each consumer, 10 s at most)"),
    (PROTOCOL, "up to half a second for each that sleeps"),
    (PROTOCOL, "every ten seconds at least"),
    (PROTOCOL, "takes less than 10 µs an item"),
    (PROTOCOL, "after 20 ms and more"),
    (PROTOCOL, "for five seconds"),
    (PROTOCOL, "2 ms for 4 MB"),
)
"""Numbers that somebody has chosen: of a workload, or of ``tqshim/engine/tuning.py``."""
