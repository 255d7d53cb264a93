"""compat/scale_model.py: what the model must say where the answer is known, and that its measurements measure.

Counts and orders only, never times of this machine.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("simpy")

from compat import scale_model
from compat.scale_model import Costs, serial_part, simulate

ROOT: Final = Path(__file__).resolve().parent.parent
MICRO: Final = 1e-6
FREE: Final = Costs(put=0.0, gets=((0, 0.0), (1, 0.0)), lock=0.0, append=0.0, ring=0.0, wake=0.0)
"""A queue that costs nothing."""
PLAIN: Final = Costs(
    put=2 * MICRO,
    gets=((0, 3 * MICRO), (1, 3 * MICRO), (10, 5 * MICRO)),
    lock=0.5 * MICRO,
    append=1 * MICRO,
    ring=30 * MICRO,
    wake=40 * MICRO,
)
ITEMS: Final = 3000
several = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two processors"
)


# -- limits


@pytest.mark.parametrize("cores", [1, 3, 8])
def test_a_queue_that_costs_nothing_keeps_every_processor_busy(cores: int) -> None:
    found = simulate(FREE, cores, 1, cores, 100 * MICRO, ITEMS)
    assert found.rate == pytest.approx(cores / (100 * MICRO), rel=0.01)
    assert found.busy["processors"] == pytest.approx(1.0, abs=0.01)


def test_one_processor_does_all_the_work_one_after_the_other() -> None:
    costs = dataclasses.replace(PLAIN, ring=0.0, wake=0.0)
    task = 20 * MICRO
    found = simulate(costs, 1, 1, 2, task, ITEMS)
    assert found.rate == pytest.approx(1 / (costs.put + costs.get(1) + task), rel=0.01)


def test_no_more_items_than_appends_fit_behind_each_other() -> None:
    costs = dataclasses.replace(PLAIN, put=0.01 * MICRO)
    found = simulate(costs, 256, 4, 200, 0.0, 10 * ITEMS, row=256)
    assert found.rate <= 1.001 / costs.lock
    assert found.rate >= 0.8 / costs.lock
    assert found.first() == "journal"


def test_no_more_items_than_the_producers_put() -> None:
    found = simulate(PLAIN, 64, 1, 40, 0.0, 3 * ITEMS)
    assert found.rate <= 1.001 / PLAIN.put
    assert found.first() == "producers"


def test_long_tasks_use_up_the_consumers() -> None:
    found = simulate(PLAIN, 9, 1, 8, 1000 * MICRO, ITEMS)
    assert found.rate == pytest.approx(8 / (1000 * MICRO + PLAIN.get(7)), rel=0.05)
    assert found.first() == "consumers"


def test_all_items_arrive_through_a_queue_that_is_full_most_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_model, "BOUND", 512)
    found = simulate(PLAIN, 8, 4, 2, 10 * MICRO, ITEMS)
    assert 0 < found.rate <= 2 / (10 * MICRO)


# -- what more or less of something does

costs_drawn = st.builds(
    lambda put, get, lock: Costs(put=put, gets=((0, get), (1, get)), lock=lock, append=2 * lock, ring=0.0, wake=0.0),
    st.floats(0.5 * MICRO, 5 * MICRO),
    st.floats(2 * MICRO, 20 * MICRO),
    st.floats(0.0, 1 * MICRO),
)


@settings(max_examples=10, deadline=None)
@given(costs_drawn, st.sampled_from([0.0, 10 * MICRO, 100 * MICRO]), st.integers(1, 16))
def test_more_processors_are_never_slower(costs: Costs, task: float, cores: int) -> None:
    fewer = simulate(costs, cores, 1, 12, task, 1000).rate
    assert simulate(costs, 2 * cores, 1, 12, task, 1000).rate >= 0.98 * fewer


@settings(max_examples=10, deadline=None)
@given(costs_drawn, st.sampled_from(["put", "gets", "lock"]), st.integers(1, 16))
def test_what_costs_more_is_never_faster(costs: Costs, what: str, cores: int) -> None:
    dearer: Any = tuple((k, 2 * get) for k, get in costs.gets) if what == "gets" else 2 * getattr(costs, what)
    more = dataclasses.replace(costs, **{what: dearer})
    assert simulate(more, cores, 1, 8, 0.0, 1000).rate <= 1.02 * simulate(costs, cores, 1, 8, 0.0, 1000).rate


@settings(max_examples=25, deadline=None)
@given(costs_drawn, st.integers(1, 8), st.integers(1, 8))
def test_nothing_is_used_more_than_all_the_time(costs: Costs, cores: int, consumers: int) -> None:
    found = simulate(costs, cores, 1, consumers, 10 * MICRO, 500)
    assert all(-1e-9 <= share <= 1 + 1e-9 for share in found.busy.values())
    assert found.busy[found.first()] == max(found.busy.values()) or found.busy[found.first()] >= scale_model.SATURATED


def test_a_get_costs_what_was_measured_and_lies_on_lines_in_between_and_beyond() -> None:
    costs = dataclasses.replace(FREE, gets=((0, 1.0), (2, 3.0), (10, 4.0)))
    assert [costs.get(others) for others in (0, 1, 2, 6, 10, 18)] == [1.0, 2.0, 3.0, 3.5, 4.0, 5.0]
    assert dataclasses.replace(FREE, gets=((0, 1.0),)).get(50) == 1.0


@given(st.floats(0.01, 100.0), st.floats(0.0, 1.0))
def test_the_serial_part_is_the_one_that_the_queueing_formula_was_given(whole: float, share: float) -> None:
    part = share * whole
    together = 2 / (whole + part**2 / whole)
    assert serial_part(whole, together) == pytest.approx(part, rel=1e-5, abs=1e-6 * whole)


# -- measuring


@pytest.mark.parametrize("place", scale_model.PLACES)
@pytest.mark.parametrize("processes", [1, 7])
def test_a_shared_place_can_be_used_by_several(place: str, processes: int) -> None:
    use = scale_model.use_together(place, processes, 70)
    assert (use.place, use.processes) == (place, processes)
    assert 0 < use.processor * use.rate <= processes, "no process uses more processor than there is time"


@pytest.mark.stress
@pytest.mark.rest
@several
def test_the_command_says_what_is_measured_and_what_is_modelled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale_model, "PROCESSES", (1, 3))
    monkeypatch.setattr(scale_model, "SHAPES", ((1, 2, 0.0), (1, 4, 10 * MICRO)))
    monkeypatch.setattr(scale_model, "CORES", (8,))
    assert scale_model.main(["--effort", "0.01", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if line[:1].isupper()]
    assert [head.partition(":")[0].split(",")[0] for head in heads] == [
        "MEASURED",
        "MEASURED on this machine",
        "MEASURED AND MODELLED",
        "MODELLED",
    ]
    checks = lines.index(heads[2]) + 2
    assert [line.split()[:2] for line in lines[checks : checks + 4]] == [
        [cores, shape] for cores in "12" for shape in ("1x2", "1x4")
    ]


@pytest.mark.stress
@pytest.mark.rest
def test_costs_that_were_written_are_read_and_nothing_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps({"costs": dataclasses.asdict(PLAIN)}), "utf-8")
    words = [sys.executable, "-m", "compat.scale_model", "--effort", "0.005", "--costs", str(path), "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"costs", "predictions"}
    assert document["costs"] == json.loads(path.read_text("utf-8"))["costs"]
    wanted = [(task, cores) for task in scale_model.TASKS for cores in scale_model.CORES for _ in range(2)]
    assert [(row["task"], row["cores"]) for row in document["predictions"]] == wanted
    for row in document["predictions"]:
        assert row["producers"] + row["consumers"] == row["cores"]
        assert row["as_measured"]["rate"] > 0
