"""compat/peers.py measures what arrived whole, and says so when something did not. Counts only, never times."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest

from compat import peers

ROOT = pathlib.Path(__file__).absolute().parent.parent
METHODS = multiprocessing.get_all_start_methods()
BASE, TURBO, PEER = peers.STDLIB, "TurboQueue", "faster-fifo"


def run(*options: str, rounds: int = 1) -> dict[str, Any]:
    """Run the command as a user does and return its document."""
    words = [sys.executable, "-m", "compat.peers", "--json", "--rounds", str(rounds), *options]
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the whole session: its processes hold the pipes open
        pytest.fail(f"{words} hangs: {process.communicate()}")
    assert process.returncode == 0, output + errors
    document: dict[str, Any] = json.loads(output)
    return document


def usable(*names: str) -> set[str]:
    return {name for name in names if importlib.util.find_spec(peers.KINDS[name].module)}


def setting(limit: float = 60.0, scale: float = 0.001) -> peers.Setting:
    return peers.Setting(multiprocessing.get_context("fork"), scale, limit)


# --- what is checked -------------------------------------------------------------------------------------------------


def test_delivery_of_everything_once_and_in_order_is_accepted() -> None:
    peers.check_delivery([[0, 3, 4], [1, 2, 5]], producers=2, each=3)
    peers.check_delivery([[0, 1, 2], []], producers=1, each=3)


@pytest.mark.parametrize(
    ("shares", "complaint"),
    [
        ([[0, 1, 2], [4, 5]], "1 of 6 items lost, 0 received"),
        ([[0, 1, 2, 3], [3, 4, 5]], "0 of 6 items lost, 1 received"),
        ([[0, 1, 2], [3, 3, 4, 5]], "item 3 came after 3"),
        ([[2, 1, 0], [3, 4, 5]], "item 0 came after 2"),
        ([[0, 1, 2], [3, 4, 5, 6]], "item 6 was received but never put"),
        ([[], []], "6 of 6 items lost"),
    ],
)
def test_bad_delivery_is_refused(shares: list[list[int]], complaint: str) -> None:
    with pytest.raises(peers.RunError, match=complaint):
        peers.check_delivery(shares, producers=2, each=3)


class Faulty:
    """A queue that mistreats its seventh item."""

    def __init__(self, context: Any, fault: str) -> None:
        self.inner = context.Queue()
        self.fault = fault

    def put(self, item: tuple[int, ...], block: bool = True, timeout: float | None = None) -> None:
        if item[0] == 7:
            if self.fault == "die":
                os._exit(3)
            if self.fault == "raise":
                raise ZeroDivisionError("on purpose")
            if self.fault == "double":
                self.inner.put(item)
            if self.fault == "lose":
                return
        self.inner.put(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return self.inner.get(block, timeout)

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("lose", "1 of 20 items lost, 0 received more"),
        ("double", "item 7 came after 7"),
        ("die", "produce died with exit code 3"),
        ("raise", "ZeroDivisionError: on purpose"),
        ("none", ""),
    ],
)
def test_a_run_over_a_faulty_queue_fails(fault: str, complaint: str) -> None:
    before = set(multiprocessing.active_children())  # other tests keep workers
    kind = peers.Kind("faulty", "multiprocessing", lambda context, bound, room: Faulty(context, fault))
    case = peers.Case(
        "tiny",
        "one producer, one consumer",
        ("faulty",),
        (peers.Metric("rate", "items/s", 0),),
        lambda kind, setting: peers.throughput(kind, setting, 1, 1, 20, 0),
    )
    result = peers.measure(case, [kind], setting(scale=1.0), rounds=1)
    if complaint:
        assert complaint in result["failures"]["faulty"]
        assert result["metrics"]["rate"]["kinds"] == {}
    else:
        assert result["failures"] == {}
        assert len(result["metrics"]["rate"]["kinds"]["faulty"]["runs"]) == 1
    assert set(multiprocessing.active_children()) <= before


def test_a_run_that_hangs_is_ended_and_fails() -> None:
    before = set(multiprocessing.active_children())
    kind = peers.Kind("faulty", "multiprocessing", lambda context, bound, room: Faulty(context, "lose"))
    with pytest.raises(peers.RunError, match="ping has not finished within 1 s"):
        # Round trips, the queue of which never gives back the seventh item.
        peers.roundtrip(kind, setting(limit=1.0), 0)
    assert set(multiprocessing.active_children()) <= before


def test_a_failed_run_makes_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = peers.Kind(BASE, "multiprocessing", lambda context, bound, room: Faulty(context, "lose"))
    monkeypatch.setitem(peers.KINDS, BASE, faulty)
    options = ["--only", "bounded/1x1", "--kind", BASE, "--scale", "0.001", "--rounds", "1", "--start-method", "fork"]
    assert peers.main(options) == 1
    assert f"FAILED: 1 of {200:,} items lost" in capsys.readouterr().out


# --- the command -----------------------------------------------------------------------------------------------------


def test_ratios_are_between_runs_of_one_round() -> None:
    figures = {"a": iter([10.0, 20.0, 40.0]), "b": iter([20.0, 60.0, 80.0])}
    kinds = [peers.Kind(name, "multiprocessing", peers.make_stdlib) for name in (BASE, "b")]
    case = peers.Case(
        "tiny",
        "",
        (BASE, "b"),
        (peers.Metric("rate", "items/s", 0),),
        lambda kind, setting: [next(figures["a" if kind.name == BASE else "b"])],
    )
    rows = peers.measure(case, kinds, setting(), rounds=3)["metrics"]["rate"]["kinds"]
    assert rows[BASE] == {"runs": [10.0, 20.0, 40.0], "median": 20.0, "min": 10.0, "max": 40.0, "ratios": {}}
    assert rows["b"]["ratios"] == {BASE: {"median": 2.0, "min": 2.0, "max": 3.0}}


@pytest.mark.parametrize("group", ["bounded", "unbounded"])
def test_all_six_configurations_deliver_everything(group: str) -> None:
    document = run("--only", group, "--scale", "0.002", rounds=2)
    assert [case["name"] for case in document["cases"]] == [
        f"{group}/{shape}" for shape in ("1x1", "1x10", "10x1", "3x20", "20x3", "20x20")
    ]
    for case in document["cases"]:
        rows = case["metrics"]["rate"]["kinds"]
        assert set(rows) == usable(BASE, PEER, TURBO, f"{PEER}/many", f"{TURBO}/many")
        assert all(len(row["runs"]) == 2 and row["min"] > 0 for row in rows.values())
        assert set(rows[TURBO]["ratios"]) == usable(BASE, PEER)
        assert set(rows[f"{TURBO}/many"]["ratios"]) == usable(BASE, f"{PEER}/many")


@pytest.mark.parametrize("method", METHODS)
def test_every_start_method_serves(method: str) -> None:
    document = run("--only", "bounded/3x20", "--only", "roundtrip", "--scale", "0.002", "--start-method", method)
    assert document["machine"]["start_method"] == method
    assert [case["name"] for case in document["cases"]] == ["bounded/3x20", "roundtrip"]
    assert set(document["cases"][1]["metrics"]) == {"p50", "p99"}


def test_round_trips_beside_busy_processes_come_back() -> None:
    document = run("--only", "roundtrip-busy", "--scale", "0.002")
    assert set(document["cases"][0]["metrics"]["p99"]["kinds"]) == usable(BASE, PEER, TURBO, "SimpleQueue")


def test_idle_consumers_get_one_item_each() -> None:
    (case,) = run("--only", "idle", "--scale", "0.02")["cases"]
    assert set(case["metrics"]["cpu"]["kinds"]) == usable(BASE, PEER, TURBO)


def test_only_the_stdlib_needs_a_reader_to_exit() -> None:
    """5,000 items are more than a pipe holds; None stands for a producer that waits for a reader."""
    (case,) = run("--only", "exit", "--scale", "0.005", "--kind", BASE, "--kind", TURBO)["cases"]
    rows = case["metrics"]["exit"]["kinds"]
    assert rows[BASE]["runs"] == [None]
    assert None not in rows[TURBO]["runs"]


def test_tables_name_machine_command_and_spread(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--only", "roundtrip", "--scale", "0.001", "--rounds", "1", "--kind", BASE, "--kind", "SimpleQueue"]
    assert peers.main(options) == 0
    output = capsys.readouterr().out
    assert f"python -m compat.peers --only roundtrip --scale 0.001 --rounds 1 --kind {BASE}" in output
    for word in ("cores", "python", "kernel", "start_method", "median (min-max)", "x multiprocessing.Queue"):
        assert word in output


def test_a_peer_that_is_not_installed_is_skipped_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(peers.KINDS, PEER, peers.Kind(PEER, "no_such_module_anywhere", peers.make_faster_fifo))
    assert peers.main(["--only", "roundtrip", "--scale", "0.001", "--rounds", "1", "--kind", BASE, "--kind", PEER]) == 0
    output = capsys.readouterr().out
    assert f"not installed, skipped: {PEER}" in output


def test_an_unknown_measurement_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.main(["--only", "speed"]) == 2
    assert "no measurement is called speed; choose of bounded/1x1" in capsys.readouterr().err
