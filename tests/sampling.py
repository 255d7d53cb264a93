"""Samples in the place of walks that take minutes: the same in each run, or those of the seed in ``TQSHIM_SEED``.

Lives here: the seed, and a generator for each test that takes a sample.  The walk itself is marked ``stress``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Final, TypeVar

__all__ = ["SEED", "chooser", "some"]

SEED: Final = int(os.environ.get("TQSHIM_SEED") or 19)
T = TypeVar("T")


def chooser(name: str) -> random.Random:
    """What chooses the sample of that name; pytest shows the seed where a test fails."""
    print(f"this sample again: TQSHIM_SEED={SEED}")
    return random.Random(f"{SEED} {name}")


def some(name: str, of: Sequence[T], count: int) -> list[T]:
    """So many of them, in their order."""
    chosen = sorted(chooser(name).sample(range(len(of)), min(count, len(of))))
    return [of[at] for at in chosen]
