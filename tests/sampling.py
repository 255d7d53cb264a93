"""Samples that stand in for walks of minutes: the same samples in each run, or those of the seed in ``TQSHIM_SEED``.

Lives here: the seed, and a generator for each test that takes a sample.  The walk itself is marked ``stress``; the
cases that a sample leaves out are marked ``rest``, too, so that they can run alone with the same seed.  A run for which
all of those are too many takes a share of them (``TQSHIM_SHARE``), another share for each seed.
"""

from __future__ import annotations

import os
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import pytest

__all__ = ["REST", "SEED", "SHARE", "TURNS", "chooser", "examples", "has_turn", "sampled", "some"]

SEED: Final = int(os.environ.get("TQSHIM_SEED") or 19)
SHARE: Final = int(os.environ.get("TQSHIM_SHARE") or 1)
"""One test in so many runs."""
TURNS: Final = 3
"""A case that is marked ``in_turn`` is in the default run of one seed of so many, and in the rest of the others."""
REST: Final = (pytest.mark.stress, pytest.mark.rest)
"""Of a case that the default run leaves out."""
T = TypeVar("T")


def chooser(name: str) -> random.Random:
    """What chooses the sample of that name; pytest shows the seed where a test fails."""
    print(f"this sample again: TQSHIM_SEED={SEED}")
    return random.Random(f"{SEED} {name}")


def has_turn(test: str, of: int) -> bool:
    """Whether it is that test's turn: of so many seeds in a row it is once."""
    return (zlib.crc32(test.encode()) + SEED) % of == 0


def some(name: str, of: Sequence[T], count: int) -> list[T]:
    """So many of them, in their order."""
    chosen = sorted(chooser(name).sample(range(len(of)), min(count, len(of))))
    return [of[at] for at in chosen]


def examples(count: int) -> int:
    """So many examples of a property where ``TQSHIM_SEED`` is set, as in ``.ci/run``; else the first third of them."""
    return count if os.environ.get("TQSHIM_SEED") else count // 3


def sampled(name: str, of: Sequence[Any], count: int, rest: bool = True) -> list[Any]:
    """All of them as parameters of a test: so many are in the default run, the others the rest.

    Without ``rest`` those are left out: a test beside it that ``.ci/run`` calls walks through all, and further.  Of
    tuples, each of which is several parameters, those are chosen in which each value comes equally often."""
    left = list(range(len(of)))
    random.Random(f"{SEED} {name}").shuffle(left)
    used: Counter[tuple[int, str]] = Counter()
    values = [tuple(enumerate(map(repr, one))) if type(one) is tuple else () for one in of]
    numbers = set()
    while left and len(numbers) < count:
        best = min(left, key=lambda number: sum(used[value] for value in values[number]))
        left.remove(best)
        numbers.add(best)
        used.update(values[best])
    return [
        pytest.param(*(one if type(one) is tuple else (one,)), marks=() if number in numbers else REST)
        for number, one in enumerate(of)
        if rest or number in numbers
    ]
