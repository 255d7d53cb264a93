"""Many processes, items, queues, leftovers: ``compat.load`` in full is a stress run; a short one runs each time."""

from __future__ import annotations

import os

import pytest

from compat import load

SCALE = float(os.environ.get("TQSHIM_LOAD", "1"))
"""Share of the counts that the stress runs do."""


@pytest.mark.in_turn
@pytest.mark.parametrize("name", load.RUNS)
def test_a_thousandth_of_the_load_is_carried(name: str) -> None:
    print(load.RUNS[name](0.001))


@pytest.mark.stress
@pytest.mark.parametrize("name", load.RUNS)
def test_all_of_the_load_is_carried(name: str) -> None:
    print(load.RUNS[name](SCALE))
