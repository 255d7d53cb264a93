"""Stand-ins on loopback for the services that the examples talk to; each refuses now and then.

``Source`` hands out events by pages, ``Target`` takes results, ``Bulk`` speaks as much of Elasticsearch's bulk API as
its official client needs. They are no benchmark and no Elasticsearch: they show that refusals lose nothing.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

__all__ = ["Bulk", "Service", "Source", "Target", "serving", "text_of"]

REFUSE_EVERY = 7
"""Every so manyth request is refused: as overloaded and as too many, in turn."""


class Service(http.server.BaseHTTPRequestHandler):
    """What the three have in common: JSON, kept connections, refusals."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[int] = 0
    refused: ClassVar[int] = 0
    lock: ClassVar[threading.Lock] = threading.Lock()

    def __init_subclass__(cls) -> None:
        cls.lock = threading.Lock()

    def body(self) -> bytes:
        """What the client has sent; read in any case, for the connection is used again."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def is_refused(self) -> bool:
        """Count the request, and refuse it if it is its turn."""
        kind = type(self)
        with self.lock:
            kind.requests += 1
            if kind.requests % REFUSE_EVERY:
                return False
            kind.refused += 1
            status = 503 if kind.refused % 2 else 429
        self.answer(status, {"error": "not now"})
        return True

    def answer(self, status: int, content: Any, **headers: str) -> None:
        """Send JSON."""
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def text_of(number: int) -> str:
    """An event of the source."""
    return f"event {number} " * 20


class Source(Service):
    """GET /events?from=N&limit=K: so many of the numbered events, from the Nth on."""

    events = 0

    def do_GET(self) -> None:
        if not self.is_refused():
            query = parse_qs(urlsplit(self.path).query)
            first = int(query["from"][0])
            last = min(first + int(query["limit"][0]), self.events)
            self.answer(200, [{"number": number, "text": text_of(number)} for number in range(first, last)])


class Target(Service):
    """POST /results: takes a list of results, each under its number.  One that comes again changes nothing, so a
    client that does not know whether a result has arrived sends it again."""

    results: ClassVar[dict[int, Any]] = {}
    repeated: ClassVar[int] = 0

    def do_POST(self) -> None:
        body = self.body()
        if not self.is_refused():
            with self.lock:
                for result in json.loads(body):
                    kept = self.results.setdefault(result["number"], result)
                    type(self).repeated += kept is not result
            self.answer(201, {})


class Bulk(Service):
    """POST /_bulk: index actions only. Refuses requests, refuses single documents as overloaded (429), and never takes
    one with a field ``bad`` (400)."""

    documents: ClassVar[dict[str, Any]] = {}
    actions: ClassVar[int] = 0

    def do_POST(self) -> None:
        self.answer_bulk(self.body())

    do_PUT = do_POST

    def answer_bulk(self, body: bytes) -> None:
        if self.is_refused():
            return
        lines = [json.loads(line) for line in body.splitlines() if line]
        with self.lock:
            items = [{"index": self.take(action["index"], source)} for action, source in zip(lines[::2], lines[1::2])]
        self.answer(200, {"took": 1, "errors": any(item["index"]["status"] > 201 for item in items), "items": items})

    def take(self, action: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
        """One document."""
        kind = type(self)
        kind.actions += 1
        answer = {"_index": action["_index"], "_id": action["_id"]}
        if "bad" in source:
            return {**answer, "status": 400, "error": {"type": "document_parsing_exception", "reason": "field bad"}}
        if kind.actions % 11 == 0:
            return {**answer, "status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "full"}}
        status = 200 if action["_id"] in self.documents else 201
        self.documents[action["_id"]] = source
        return {**answer, "status": status}

    def answer(self, status: int, content: Any, **headers: str) -> None:
        """Its official client talks to nobody who doesn't say this name."""
        super().answer(status, content, X_Elastic_Product="Elasticsearch", **headers)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news; everything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(service: type[Service]) -> Iterator[str]:
    """The service on a loopback port, from a thread; its URL."""
    server = _Server(("127.0.0.1", 0), service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
