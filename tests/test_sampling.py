"""The default run, or a share, leaves out another part with each seed, and every test belongs to some part."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from sampling import TURNS

CHOSEN = ("tests/test_names.py", "tests/contract/test_contract_ends.py")
LONG = "tests/test_arguments.py"


def collected(*chosen: str, **variables: str) -> Counter[str]:
    """The tests that would run, of those files or so marked."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--collect-only", *chosen]
    environment = {**os.environ, "TQSHIM_SHARE": "", **variables}
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Counter(line for line in said.stdout.splitlines() if "::" in line)


@pytest.mark.in_turn
def test_as_many_seeds_as_there_are_shares_run_each_test_once_and_those_of_the_contract_always() -> None:
    whole = collected(*CHOSEN)
    shares = sum((collected(*CHOSEN, TQSHIM_SHARE="2", TQSHIM_SEED=str(seed)) for seed in (8, 9)), Counter())
    assert set(shares) == set(whole)
    assert {shares[test] for test in whole if "contract" in test} == {2}
    assert {shares[test] for test in whole if "contract" not in test} == {1}


@pytest.mark.in_turn
def test_each_case_that_takes_long_has_its_turn_and_is_the_rest_at_other_times() -> None:
    """In a file whose cases are the same with each seed."""
    default: Counter[str] = Counter()
    rest: Counter[str] = Counter()
    for seed in range(TURNS):
        default += collected(LONG, "-m", "in_turn and not stress", TQSHIM_SEED=str(seed))
        rest += collected(LONG, "-m", "in_turn and rest", TQSHIM_SEED=str(seed))
    assert len(default) > TURNS
    assert set(default.values()) == {1}
    assert rest == Counter(dict.fromkeys(default, TURNS - 1))
