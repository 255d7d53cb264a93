"""A put that has returned is in the queue, for everybody and at once, whatever becomes of its process.

The cases are those of ``survival_run.py``; here each runs a few times, with ``-m stress`` a hundred."""

from __future__ import annotations

import multiprocessing
import sys
from itertools import product

import own_folder
import pytest
import survival_run
from sampling import sampled
from survival_run import COUNTS, DEATHS, OURS, TASKS, WAYS

METHODS = multiprocessing.get_all_start_methods()
SEVERAL = {"fork": 5}
"""Runs of a pool's block by the start method, where not one: the others take long to start one."""
FEWER = {"put_many": (3, 1000), "large items": (3,), "large put_many": (3,)}
"""Of these ways to put so many, where not all counts: each of them is a process."""


@pytest.mark.parametrize(("method", "kind", "tasks"), sampled("pools", list(product(METHODS, OURS, TASKS)), 5))
def test_block_of_a_pool_that_ends_loses_no_result(method: str, kind: str, tasks: int) -> None:
    """Its workers are terminated as soon as the last task has returned."""
    for _ in range(SEVERAL.get(method, 1)):
        assert survival_run.pool_block(method, kind, tasks) == list(range(tasks))


@pytest.mark.parametrize(("kind", "death"), sampled("deaths", list(product(OURS, DEATHS)), 4))
def test_all_that_was_put_outlives_its_producer(kind: str, death: str) -> None:
    """It dies of something else each time, right after its last put; nothing is missing, and all is in order."""
    for way in WAYS:
        for count in FEWER.get(way, COUNTS):
            if survival_run.fits(kind, way, count):
                assert survival_run.survivors("fork", kind, way, count, death) == list(range(count)), (way, count)


@pytest.mark.parametrize(("method", "death"), sampled("started", list(product(METHODS, DEATHS)), 3))
def test_all_that_was_put_outlives_a_producer_started_in_any_way(method: str, death: str) -> None:
    for count in COUNTS:
        assert survival_run.survivors(method, "TurboQueue", "put", count, death) == list(range(count)), count
    for kind in OURS[1:] if death == "SIGKILL" else ():
        assert survival_run.survivors(method, kind, "put", 3, death) == [0, 1, 2], kind


@pytest.mark.parametrize("kind", OURS)
def test_another_process_sees_each_item_right_after_its_put(kind: str) -> None:
    """A pipe tells it to look: its ``qsize``, ``empty`` and ``get_nowait`` know the item each time."""
    assert survival_run.late_looks("fork", kind, 500) == 0


@pytest.mark.parametrize("places", [0, 100])
@pytest.mark.parametrize("ways", [{}, {"later": True}, {"stops": True}], ids=["at once", "later", "stopped"])
def test_items_put_apart_come_in_the_order_of_time(places: int, ways: dict[str, bool]) -> None:
    """Of four producers, which put at random instants; one may be stopped in the middle."""
    count = 1000
    found = survival_run.order("fork", count if places and ways.get("later") else places, count, **ways)
    assert found.apart > count // 2
    assert found.misplaced == 0, found


@pytest.mark.parametrize(
    "options",
    [("--runs", "0"), ("--looks", "0"), ("--order", "-1"), ("--methods",), ("--methods", "none"), ("--parts",)],
)
def test_a_run_of_nothing_is_refused(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["survival_run.py", *options])
    monkeypatch.setattr(own_folder, "make", None)  # calling it would fail: nothing is begun
    with pytest.raises(SystemExit) as ended:
        survival_run.main()
    assert ended.value.code == 2


@pytest.mark.stress
@pytest.mark.parametrize("tasks", TASKS)
def test_a_hundred_blocks_of_pools_lose_no_result(method: str, tasks: int) -> None:
    for _ in range(100):
        assert survival_run.pool_block(method, "TurboQueue", tasks) == list(range(tasks))


@pytest.mark.stress
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("death", DEATHS)
def test_all_that_was_put_outlives_a_hundred_producers(method: str, death: str, count: int) -> None:
    for _ in range(100):
        assert survival_run.survivors(method, "TurboQueue", "put", count, death) == list(range(count))


@pytest.mark.stress
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", OURS)
def test_all_that_was_put_in_any_way_outlives_a_hundred_producers(kind: str, way: str) -> None:
    for number in range(100):
        for death in DEATHS:
            count = COUNTS[number % len(COUNTS)]
            if survival_run.fits(kind, way, count):
                assert survival_run.survivors("fork", kind, way, count, death) == list(range(count)), (death, count)


@pytest.mark.stress
@pytest.mark.parametrize("kind", OURS)
def test_another_process_sees_ten_thousand_items_right_after_their_puts(kind: str) -> None:
    assert survival_run.late_looks("fork", kind, 10_000) == 0


@pytest.mark.stress
@pytest.mark.parametrize("places", [0, 1000])
@pytest.mark.parametrize("ways", [{}, {"later": True}, {"stops": True}], ids=["at once", "later", "stopped"])
def test_a_hundred_thousand_items_put_apart_come_in_the_order_of_time(places: int, ways: dict[str, bool]) -> None:
    count = 100_000
    found = survival_run.order("fork", count if places and ways.get("later") else places, count, **ways)
    assert found.apart > count // 2
    assert found.misplaced == 0, found
