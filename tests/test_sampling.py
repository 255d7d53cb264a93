"""A share of the tests is another one with the next seed, and no test is in none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

CHOSEN = ("tests/test_names.py", "tests/contract/test_contract_ends.py")


def collected(**variables: str) -> Counter[str]:
    """The tests of two files that would run."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--collect-only", *CHOSEN]
    said = subprocess.run(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, check=True)
    return Counter(line for line in said.stdout.splitlines() if "::" in line)


def test_as_many_seeds_as_there_are_shares_run_each_test_once_and_those_of_the_contract_always() -> None:
    whole = collected(TQSHIM_SHARE="")
    shares = sum((collected(TQSHIM_SHARE="2", TQSHIM_SEED=str(seed)) for seed in (8, 9)), Counter())
    assert set(shares) == set(whole)
    assert {shares[test] for test in whole if "contract" in test} == {2}
    assert {shares[test] for test in whole if "contract" not in test} == {1}
