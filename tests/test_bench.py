"""``python -m tqshim bench`` gives figures of runs in which all items arrived, says so when one did not, and leaves
nothing behind.

These tests check counts only, never times.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, Final

import pytest
from sampling import sampled

from tqshim.bench import chart, command, crew, kinds, measurements, programs, report, rounds, runs, workloads
from tqshim.bench.kinds import FASTER_FIFO, PICKLE, SIMPLE, STDLIB, TURBO, many
from tqshim.bench.measurements import Level
from tqshim.cli import main as cli

ROOT: Final = pathlib.Path(__file__).absolute().parent.parent
METHODS: Final = multiprocessing.get_all_start_methods()
PATIENCE: Final = 60.0
"""Seconds within which everything that must happen happens."""
ALL: Final = {one.name: one for one in measurements.measurements()}
TINY: Final = ("--scale", "0.0005", "--rounds", "1")


@contextlib.contextmanager
def bench(*options: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a user runs it, in a session of its own, which is ended with the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tqshim", "bench", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def document(*options: str) -> dict[str, Any]:
    """What the command prints for programs."""
    with bench("--json", *options) as process:
        output, errors = process.communicate(timeout=4 * PATIENCE)
    assert process.returncode == 0, output + errors
    read: dict[str, Any] = json.loads(output)
    return read


def usable(*names: str) -> set[str]:
    return {name for name in names if kinds.usable(kinds.KINDS[name])}


def test_all_that_is_compared_is_there() -> None:
    """What is not, the other tests do without."""
    pytest.importorskip("faster_fifo", reason="faster-fifo is not there for this Python")
    assert usable(*kinds.KINDS) == set(kinds.KINDS)


def setting(limit: float = PATIENCE, scale: float = 0.001) -> runs.Setting:
    return runs.Setting(multiprocessing.get_context("fork"), scale, limit)


def metric(name: str = "rate") -> measurements.Metric:
    return measurements.Metric(name, "items/s", 0)


def taken(*all_runs: rounds.Runs, turns: int = 1, seconds: float = PATIENCE) -> list[dict[str, Any]]:
    return rounds.take(all_runs, turns, seconds, lambda text: None)


# -- what is checked


def test_delivery_of_everything_once_and_in_order_is_accepted() -> None:
    workloads.check_delivery([[0, 3, 4], [1, 2, 5]], producers=2, each=3)
    workloads.check_delivery([[0, 1, 2], []], producers=1, each=3)


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
    with pytest.raises(crew.RunError, match=complaint):
        workloads.check_delivery(shares, producers=2, each=3)


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


def faulty(fault: str, name: str = "faulty") -> kinds.Kind:
    return kinds.Kind(name, "multiprocessing", lambda context, bound, room: Faulty(context, fault))


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
    one = measurements.Measurement(
        "tiny",
        "one producer, one consumer",
        ("faulty",),
        (metric(),),
        lambda kind, setting: runs.throughput(kind, setting, 1, 1, 20, 0),
    )
    (result,) = taken(rounds.Runs(one, [faulty(fault)], setting(scale=1.0)))
    if complaint:
        assert complaint in result["failures"]["faulty"]
        assert result["metrics"]["rate"]["kinds"] == {}
    else:
        assert result["failures"] == {}
        assert len(result["metrics"]["rate"]["kinds"]["faulty"]["runs"]) == 1
    assert set(multiprocessing.active_children()) <= before


def test_a_run_that_hangs_is_ended_and_fails() -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(crew.RunError, match="ping has not finished within 1 s"):
        # Round trips, the queue of which never gives back the seventh item.
        runs.roundtrip(faulty("lose"), setting(limit=1.0), 0)
    assert set(multiprocessing.active_children()) <= before


def test_large_items_that_come_changed_are_noticed() -> None:
    gate = multiprocessing.get_context("fork").Barrier(1)

    class Changing:
        def get(self, block: bool, timeout: float | None) -> bytes:
            return b"a" * 10

    with pytest.raises(crew.RunError, match="large item 0 came changed"):
        workloads.receive(Changing(), b"a" * 9 + b"b", 1, gate, None)


def test_a_failed_run_makes_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(kinds.KINDS, STDLIB, faulty("lose", STDLIB))
    options = ["--only", "bounded/1x1", "--kind", STDLIB, "--scale", "0.001", "--rounds", "1", "--start-method", "fork"]
    assert cli.main(["bench", *options]) == 1
    assert f"FAILED: 1 of {200:,} items lost" in capsys.readouterr().out


# -- what is left


def hang(sign: int) -> None:
    os.write(sign, b"!")
    time.sleep(10 * PATIENCE)


def start_and_die(sign: int) -> None:
    """Be a bench that is killed with a process of its under way."""
    crew.GRACE = 0.0  # type: ignore[misc]
    crew.Crew(multiprocessing.get_context("fork"), 1.0).start(hang, sign)
    os.kill(os.getpid(), signal.SIGKILL)


def test_processes_of_a_killed_bench_end_by_themselves() -> None:
    """The pipe ends when nobody has its other end any more."""
    ear, sign = os.pipe()
    killed = multiprocessing.get_context("fork").Process(target=start_and_die, args=(sign,))
    killed.start()
    os.close(sign)
    killed.join(PATIENCE)
    heard = []
    while select.select([ear], [], [], PATIENCE)[0]:
        heard.append(os.read(ear, 1))
        if not heard[-1]:
            break
    os.close(ear)
    assert killed.exitcode == -signal.SIGKILL
    assert heard in ([b"!", b""], [b""])


def session_of(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(name)) == leader:
                found.append(int(name))
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("number", "whole"), sampled("interrupts", list(product((signal.SIGINT, signal.SIGTERM), (True, False))), 1)
)
def test_an_interrupted_bench_leaves_no_process_and_no_queue(number: int, whole: bool, tmp_path: pathlib.Path) -> None:
    """Ctrl-C reaches all processes of a terminal, ``kill`` only one."""
    environment = {**os.environ, "TQSHIM_DIR": str(tmp_path)}
    words = [sys.executable, "-m", "tqshim", "bench", "--only", "idle", "--kind", TURBO, "--scale", "10"]
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stderr is not None
        assert f"idle, {TURBO}" in process.stderr.readline()
        deadline = time.monotonic() + PATIENCE
        while len(session_of(process.pid)) < runs.IDLE_CONSUMERS and time.monotonic() < deadline:
            time.sleep(0.01)
        assert any(tmp_path.iterdir())
        (os.killpg if whole else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == command.INTERRUPTED
        assert "Traceback" not in errors
        # Servers of some start methods end when they notice that nobody needs them any more.
        deadline = time.monotonic() + PATIENCE
        while session_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert session_of(process.pid) == []
        assert list(tmp_path.iterdir()) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_an_interrupt_that_was_swallowed_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing but that is reported; of what else is swallowed, all is."""
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    class Interrupted:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    class Faulty:
        def __del__(self) -> None:
            raise ValueError

    with pytest.raises(KeyboardInterrupt), command._signals_interrupt() as check:
        check()
        Interrupted()
        Faulty()
        with pytest.raises(KeyboardInterrupt):
            check()
    Faulty()
    assert told == [ValueError, ValueError]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_no_run_begins_after_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    clock = [100.0]
    monkeypatch.setattr(rounds, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))

    def run(kind: kinds.Kind, setting: runs.Setting) -> list[float]:
        begun.append(kind.name)
        clock[0] += 2.0
        return [1.0]

    one = measurements.Measurement("tiny", "", ("a", "b"), (metric(),), run)
    pair = [faulty("none", name) for name in ("a", "b")]
    (result,) = taken(rounds.Runs(one, pair, setting()), turns=5, seconds=1.0)
    assert begun == ["a"]
    assert len(result["metrics"]["rate"]["kinds"]["a"]["runs"]) == 1
    assert result["failures"] == {"b": rounds.OUT_OF_TIME}


# -- rounds


def test_all_measurements_take_their_turn_once_a_round_and_ratios_are_between_runs_of_one_round() -> None:
    figures = {STDLIB: iter([10.0, 20.0, 40.0]), "b": iter([20.0, 60.0, 80.0])}
    order: list[str] = []

    def run(kind: kinds.Kind, setting: runs.Setting) -> list[float]:
        order.append(kind.name)
        return [next(figures[kind.name])]

    def other(kind: kinds.Kind, setting: runs.Setting) -> list[float]:
        order.append("other")
        return [1.0]

    pair = [faulty("none", name) for name in (STDLIB, "b")]
    result, _ = taken(
        rounds.Runs(measurements.Measurement("tiny", "", (STDLIB, "b"), (metric(),), run), pair, setting()),
        rounds.Runs(measurements.Measurement("other", "", ("b",), (metric(),), other), pair[:1], setting()),
        turns=3,
    )
    assert order == [STDLIB, "b", "other"] * 3
    rows = result["metrics"]["rate"]["kinds"]
    assert rows[STDLIB] == {"runs": [10.0, 20.0, 40.0], "median": 20.0, "min": 10.0, "max": 40.0, "ratios": {}}
    assert rows["b"]["ratios"] == {STDLIB: {"median": 2.0, "min": 2.0, "max": 3.0}}


def test_a_kind_that_failed_takes_no_further_turns() -> None:
    turns: list[str] = []

    def run(kind: kinds.Kind, setting: runs.Setting) -> list[float]:
        turns.append(kind.name)
        if kind.name == "bad":
            raise crew.RunError("on purpose")
        return [1.0]

    one = measurements.Measurement("tiny", "", ("bad", "good"), (metric(),), run)
    pair = [faulty("none", name) for name in ("bad", "good")]
    (result,) = taken(rounds.Runs(one, pair, setting()), turns=2)
    assert turns == ["bad", "good", "good"]
    assert result["failures"] == {"bad": "on purpose"}


# -- what is measured


def test_names_are_unique_and_every_kind_is_known() -> None:
    assert len(list(measurements.measurements())) == len(ALL)
    for one in ALL.values():
        assert set(one.kinds) <= set(kinds.KINDS)
        assert one.base in one.kinds or not any(metric.compared for metric in one.metrics)
        assert 0 < one.share(Level.QUICK) <= one.share(Level.FULL) == 1.0
        assert 0 < one.share(Level.DEFAULT) <= 1.0


def chosen(*names: str) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("--only", name))


SHAPES: Final = ["1x1", "1x10", "10x1", "3x20", "20x3", "20x20"]


@pytest.mark.parametrize("shape", sampled("shapes", SHAPES, 1))
def test_all_six_configurations_deliver_everything(shape: str) -> None:
    assert [name for name in ALL if name.startswith("bounded/")] == [f"bounded/{one}" for one in SHAPES]
    read = document(*chosen(f"bounded/{shape}"), *TINY)
    assert [result["name"] for result in read["measurements"]] == [f"bounded/{shape}"]
    for result in read["measurements"]:
        rows = result["metrics"]["rate"]["kinds"]
        assert set(rows) == usable(STDLIB, FASTER_FIFO, TURBO, many(FASTER_FIFO), many(TURBO))
        assert all(len(row["runs"]) == 1 and row["min"] > 0 for row in rows.values())
        assert set(rows[TURBO]["ratios"]) == usable(STDLIB, FASTER_FIFO)
        assert set(rows[many(TURBO)]["ratios"]) == usable(STDLIB, many(FASTER_FIFO))


OTHERS: Final = [name for name, one in ALL.items() if one.possible() and not name.startswith("bounded/")]
GROUPS: Final = 8
"""So many runs take all of them, each another eighth."""


@pytest.mark.in_turn
@pytest.mark.parametrize("names", sampled("measurements", [OTHERS[at::GROUPS] for at in range(GROUPS)], 1))
def test_each_measurement_gives_all_its_figures(names: list[str]) -> None:
    read = document(*chosen(*names), *TINY)
    assert [result["name"] for result in read["measurements"]] == names
    for name, result in zip(names, read["measurements"]):
        assert list(result["metrics"]) == [metric.name for metric in ALL[name].metrics]
        for figures in result["metrics"].values():
            assert set(figures["kinds"]) == usable(*ALL[name].kinds), name


def test_a_group_is_taken_by_its_name() -> None:
    assert [result["name"] for result in document(*chosen("cpu"), *TINY)["measurements"]] == [
        name for name in ALL if name.startswith("cpu/")
    ]


@pytest.mark.in_turn
@pytest.mark.parametrize("method", sampled("methods", METHODS, 1))
def test_every_start_method_serves(method: str) -> None:
    names = ("bounded/1x1", "cpu/tuple", "making", "waiting")
    read = document(*chosen(*names), *TINY, "--kind", TURBO, "--kind", PICKLE, "--start-method", method)
    assert read["machine"]["start_method"] == method
    assert [result["name"] for result in read["measurements"]] == sorted(names, key=list(ALL).index)


def test_processor_time_is_told_over_pickles() -> None:
    (result,) = document(*chosen("cpu/dict"), *TINY)["measurements"]
    rows = result["metrics"]["rows"]["kinds"]
    assert result["base"] == PICKLE
    assert rows[PICKLE]["ratios"] == {}
    assert set(rows[TURBO]["ratios"]) == {PICKLE} | usable(FASTER_FIFO)


@pytest.mark.in_turn
def test_only_the_stdlib_needs_a_reader_to_exit() -> None:
    """5,000 items are more than a pipe holds; None stands for a producer that waits for a reader."""
    options = ("--scale", "0.005", "--rounds", "1", "--kind", STDLIB, "--kind", TURBO)
    (result,) = document(*chosen("exit"), *options)["measurements"]
    rows = result["metrics"]["time"]["kinds"]
    assert rows[STDLIB]["runs"] == [None]
    assert None not in rows[TURBO]["runs"]


# -- what is printed


def test_the_document_says_all_that_its_readers_rely_on() -> None:
    read = document(*chosen("roundtrip"), *TINY)
    assert set(read) == {
        "schema",
        "command",
        "machine",
        "rounds",
        "within",
        "skipped",
        "measurements",
        "seconds",
    }
    assert read["schema"] == rounds.SCHEMA
    assert {"processors", "model", "python", "kernel", "file_system", "versions"} <= set(read["machine"])
    assert {"tqshim", "faster-fifo"} <= set(read["machine"]["versions"])
    (result,) = read["measurements"]
    assert set(result) == {"name", "title", "scale", "seconds", "base", "metrics", "failures"}
    for figures in result["metrics"].values():
        assert set(figures) == {"unit", "divisor", "kinds"}
        for figure in figures["kinds"].values():
            assert set(figure) == {"runs", "median", "min", "max", "ratios"}
            assert all(set(ratio) == {"median", "min", "max"} for ratio in figure["ratios"].values())


def test_tables_name_machine_command_and_spread(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", *chosen("roundtrip"), *TINY, "--kind", STDLIB, "--kind", SIMPLE]
    monkeypatch.setattr(sys, "argv", ["tqshim", *words])
    assert cli.main(words) == 0
    output, progress = capsys.readouterr()
    assert f"python -m tqshim {' '.join(words)}" in output
    for word in ("processors", "model", "python", "kernel", "file system", "x multiprocessing.Queue", " to "):
        assert word in output
    assert f"round 1 of 1,  1 of 1: roundtrip, {SIMPLE}" in progress


def test_quick_takes_a_few_and_default_takes_all_but_the_heavy() -> None:
    def names(*words: str) -> set[str]:
        return {one.name for one in command._chosen(cli.parser().parse_args(["bench", *words]))}

    assert names("--quick") < names() < names("--full")
    assert names("--full") == {one.name for one in ALL.values() if one.possible()}
    assert names("--only", "exit", "--only", "bounded/1x1") == {"exit", "bounded/1x1"}
    assert names("--plot", "out.svg") == {f"consumers/{count}" for count in measurements.CONSUMERS}


def test_a_peer_that_is_not_installed_is_skipped_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = kinds.Kind(FASTER_FIFO, "no_such_module_anywhere", kinds.KINDS[STDLIB].make)
    monkeypatch.setitem(kinds.KINDS, FASTER_FIFO, absent)
    assert cli.main(["bench", *chosen("making"), *TINY]) == 0
    assert f"not installed, skipped: {FASTER_FIFO}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--only", "speed"], "no measurement is called speed; choose of bounded/1x1"),
        (["--quick", "--full"], "--quick and --full exclude each other"),
        (["--plot", "picture.png"], r"picture\.png: a picture is drawn as \.svg"),
        (["--only", "cpu/tuple", "--kind", SIMPLE], "cpu/tuple does not measure SimpleQueue; choose of pickle "),
        (["--only", "cpu", "--only", "idle", "--kind", PICKLE], "idle does not measure pickle; choose of"),
        (["--only", "open", "--kind", TURBO, "--kind", SIMPLE], "none of these measures SimpleQueue; .* roundtrip "),
        (["--programs", "--kind", PICKLE], "none of these measures pickle"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *options]) == 2
    assert re.search(complaint, capsys.readouterr().err)


@pytest.mark.parametrize("options", [["--rounds", "0"], ["--scale", "0"], ["--limit", "-1"], ["--kind", "queue"]])
def test_numbers_and_kinds_that_make_no_sense_are_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", *options])
    assert ended.value.code == 2


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let these modules look as if they were not installed."""
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else find(name))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--plot", "out.svg"], "drawing needs matplotlib, which is not installed; pip install 'tqshim[plot]'"),
        (["--only", "numpy"], "numpy needs numpy, which is not installed"),
        (["--only", "idle", "--kind", FASTER_FIFO], "faster-fifo: faster_fifo is not installed; leave --kind faster-"),
    ],
)
def test_what_is_not_installed_is_said_before_anything_is_measured(
    options: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "matplotlib", "numpy", "faster_fifo")
    assert cli.main(["bench", *options]) == 2
    output, errors = capsys.readouterr()
    assert (output, complaint in errors) == ("", True)
    assert not any(one.module == "numpy" for one in command._chosen(cli.parser().parse_args(["bench", "--full"])))


# -- the picture


def drawn(tmp_path: pathlib.Path, rates: dict[int, float]) -> tuple[str, pathlib.Path]:
    results = []
    for consumers, rate in rates.items():
        figure = {"runs": [rate], "median": rate, "min": rate, "max": rate, "ratios": {}}
        of_all = {STDLIB: figure, TURBO: figure}
        results.append({"name": f"{chart.GROUP}/{consumers}", "metrics": {"rate": {"kinds": of_all}}})
    path = tmp_path / "out.svg"
    machine = {"processors": 2, "python": "CPython"}
    chart.draw(str(path), {"measurements": results, "machine": machine, "rounds": 1})
    return path.read_text("utf-8"), path


@pytest.mark.in_turn
def test_the_picture_is_small_names_its_lines_and_is_the_same_each_time(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib")
    rates = {1: 300_000.0, 2: 200_000.0, 40: 100_000.0}
    text, path = drawn(tmp_path, rates)
    assert path.stat().st_size < 100_000
    for word in (f">{STDLIB}<", f">{TURBO}<", ">40<", "thousand items a second"):
        assert word in text
    assert f">{FASTER_FIFO}<" not in text
    assert drawn(tmp_path, rates)[0] == text


def test_a_picture_of_nothing_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="none of them was measured"):
        drawn(tmp_path, {})


def test_figures_without_an_end_are_written_as_null() -> None:
    assert report.without_infinity({"a": [1.0, float("inf")], "b": "inf"}) == {"a": [1.0, None], "b": "inf"}


# -- whole programs

PING: Final = """\
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--method")
print(parser.parse_args())
"""


def programs_in(folder: pathlib.Path, old: str = PING, new: str = PING, name: str = "ping") -> pathlib.Path:
    (folder / f"{name}_mp.py").write_text(old)
    (folder / f"{name}_turbo.py").write_text(new)
    return folder


def of_programs(*options: str) -> dict[str, dict[str, Any]]:
    read = document("--programs", *options)
    return {result["name"]: result for result in read["measurements"]}


@pytest.mark.in_turn
def test_programs_are_run_whole_and_told_with_wall_and_processor_time() -> None:
    read = of_programs(*chosen("ping_pong", "task_pool/2/0us", "task_pool/8/1ms"), *TINY)
    assert list(read) == ["ping_pong", "task_pool/2/0us", "task_pool/8/1ms"]
    for result in read.values():
        assert result["failures"] == {}
        assert list(result["metrics"]) == ["wall", "processor"]
        for figures in result["metrics"].values():
            assert set(figures["kinds"]) == {STDLIB, TURBO}
            assert set(figures["kinds"][TURBO]["ratios"]) == {STDLIB}
            assert all(figure["min"] > 0 for figure in figures["kinds"].values())


@pytest.mark.stress
@pytest.mark.rest
def test_every_program_gives_its_figures() -> None:
    """But for the main job, which takes as long at any scale; test_readme and test_legacy run it."""
    names = [one.name for one in programs.measurements(programs.FOLDER, None) if one.name != "parse_stdlib"]
    read = of_programs(*chosen(*names), "--scale", "0.01", "--rounds", "1")
    assert list(read) == names
    for result in read.values():
        assert all(set(figures["kinds"]) == {STDLIB, TURBO} for figures in result["metrics"].values())


def test_every_pair_that_comes_with_the_source_and_each_length_of_task_is_listed() -> None:
    listed = [one.name for one in programs.measurements(programs.FOLDER, None)]
    pairs = {path.name[: -len("_mp.py")] for path in (ROOT / "compat" / "legacy").glob("*_mp.py")}
    assert {name.partition("/")[0] for name in listed} == pairs
    assert len([name for name in listed if name.startswith(f"{programs.POOL}/")]) == 10


def test_a_long_program_sits_out_later_rounds() -> None:
    turns: list[str] = []

    def run(kind: kinds.Kind, setting: runs.Setting) -> list[float]:
        turns.append(kind.name)
        return [1.0]

    one = measurements.Measurement("tiny", "", ("a",), (metric(),), run, most=2)
    taken(rounds.Runs(one, [faulty("none", "a")], setting()), turns=4)
    assert turns == ["a", "a"]


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (PING, PING + "print('more')", "ping_turbo.py --method fork printed\n.*more\nand the first run of the pair\n"),
        (PING, PING + "raise SystemExit('on purpose')", "ping_turbo.py --method fork has ended with 1\non purpose"),
        (PING, PING + "import time; time.sleep(600)", "ping_turbo.py --method fork has not finished within 3 s"),
    ],
)
def test_a_program_that_prints_otherwise_or_fails_or_hangs_gives_no_figure(
    old: str, new: str, complaint: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(programs_in(tmp_path, old, new))
    assert cli.main(["bench", "--programs", folder, "--rounds", "1", "--limit", "3", "--start-method", "fork"]) == 1
    output = capsys.readouterr().out
    assert re.search(f"^  {TURBO} +FAILED: .*{complaint}", output, re.MULTILINE | re.DOTALL)
    assert "method='fork'" in output or "printed" not in complaint


@pytest.mark.in_turn
@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux alone")
def test_processor_time_is_that_of_the_whole_tree_also_of_what_nobody_waits_for(tmp_path: pathlib.Path) -> None:
    """A child that is waited for, and one that outlives its parent, use half a second each."""
    burning = (
        "import os, time\n"
        "def burn():\n"
        "    while time.process_time() < 0.5: pass\n"
        "    os._exit(0)\n"
        "child = os.fork() or burn()\n"
        "os.fork() or burn()\n"
        "os.waitpid(child, 0)\n"
    )
    pair = programs._Pair(str(programs_in(tmp_path, burning)), "ping", [])
    wall, processor = pair.run(kinds.KINDS[STDLIB], setting())
    assert processor >= 1.0
    assert wall >= 0.5


def test_tables_of_programs_have_a_line_each(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--programs", str(programs_in(tmp_path)), "--rounds", "2"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^ +wall, s +processor, s$", output, re.MULTILINE)
    ratio = r" +\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)"
    assert re.search(rf"^ping +\d+\.\d+ +\d+\.\d+{ratio} +\d+\.\d+ +\d+\.\d+{ratio}$", output, re.MULTILINE)


def test_without_pairs_it_says_where_they_are(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lonely_mp.py").write_text("")
    for folder in (tmp_path, tmp_path / "missing"):
        assert cli.main(["bench", "--programs", str(folder)]) == 2
        assert "run this in a checkout, or name a folder" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_an_interrupted_bench_ends_the_program_that_it_runs(tmp_path: pathlib.Path) -> None:
    told = tmp_path / "told"
    hanging = f"import os, time\nopen({str(told)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    with bench("--programs", str(programs_in(tmp_path, hanging))) as process:
        deadline = time.monotonic() + PATIENCE
        while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == command.INTERRUPTED
        assert "Traceback" not in errors
        assert session_of(int(told.read_text())) == []
