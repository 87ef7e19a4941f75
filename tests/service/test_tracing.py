from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.telemetry import JsonLines
from service.tracing import ENDPOINTS, Tracing, open_tracing
from tests.places import free_port

PNG = {"Content-Type": "image/png"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector(monkeypatch):
    """A real OTLP receiver that the environment names; the list of the spans it got."""
    spans = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collect)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield spans
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_request_and_its_stages_are_spans_of_the_callers_trace(
    serve, collector, red_square_png, caplog
):
    client = serve()
    with caplog.at_level("INFO", "service"):
        client.post(
            "/detect?part_id=A-17", content=red_square_png, headers=PNG | {"traceparent": PARENT}
        )
    client.get("/metrics")
    client.__exit__(None, None, None)

    (request,) = [span for span in collector if span.name == "POST /detect"]
    stages = {span.name for span in collector if span.parent_span_id == request.span_id}
    told = {pair.key: pair.value.string_value for pair in request.attributes}
    (line,) = [record for record in caplog.records if record.getMessage() == "request"]
    logged = json.loads(JsonLines().format(line))
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert {span.trace_id.hex() for span in collector} == {"0af7651916cd43dd8448eb211c80319c"}
    assert {"queue", "decode", "locate", "segment", "outline"} <= stages
    assert (told["flawsmith.part_id"], told["flawsmith.verdict"]) == ("A-17", "ng")
    assert logged["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert logged["span_id"] == request.span_id.hex()


def test_stages_lie_inside_their_request_one_after_the_other(serve, collector, red_square_png):
    client = serve()
    client.post("/detect", content=red_square_png, headers=PNG)
    client.__exit__(None, None, None)

    by_name = {span.name: span for span in collector}
    request, slack_ns = by_name["POST /detect"], 5_000_000
    for span in collector:
        assert request.start_time_unix_nano - slack_ns <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano + slack_ns
    locate, segment = by_name["locate"], by_name["segment"]
    assert locate.end_time_unix_nano <= segment.start_time_unix_nano + 1000


@pytest.mark.parametrize(
    "switch", [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")]
)
def test_the_standard_switches_turn_it_off(monkeypatch, switch):
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:9")
    monkeypatch.setenv(*switch)

    assert not open_tracing().config()["tracing"]


def test_without_an_endpoint_nothing_is_traced_and_no_line_has_ids(monkeypatch):
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)

    tracing = open_tracing()

    assert not tracing.config()["tracing"]
    assert tracing.ids() == {}


def test_a_collector_that_is_away_breaks_no_answer_and_no_stop(serve, monkeypatch, red_square_png):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    client = serve()

    answer = client.post("/detect", content=red_square_png, headers=PNG)
    client.__exit__(None, None, None)

    assert answer.status_code == 200


def test_spans_of_no_request_are_not_made():
    Tracing().tell([], {"product": "tiny"})

    assert Tracing().ids() == {}
