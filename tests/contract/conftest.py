"""What the tests of the contract share: a limit of time for each, and other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from contract_tools import Other

HERE = Path(__file__).absolute().parent
LIMIT = float(os.environ.get("CONTRACT_LIMIT") or 30)
"""Seconds after which a test of these hangs: each takes two at most, on a machine that is not busy."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.timeout(LIMIT))


@pytest.fixture
def other() -> Iterator[Callable[..., Other]]:
    """Makes other processes that use a queue; they are killed at the end of the test."""
    made: list[Other] = []

    def make(*queues: Any, method: str = "fork") -> Other:
        made.append(Other(*queues, method=method))
        return made[-1]

    yield make
    for one in made:
        one.kill()
