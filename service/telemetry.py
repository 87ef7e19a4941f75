"""What the service tells about itself: one trace per request, metrics, structured logs."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gpu_memory import GpuMemory
from service.graph_metrics import GraphMetrics
from service.tracing import Stage, Tracing

LOG = logging.getLogger("service")
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
CLIP_CHARS = 8000
"""Longest text of one field of a log line."""
TOLD = ("product", "version", "verdict", "code", "replayed")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass
class Trace:
    """What one request's log line, metrics and answer say about it. Times are milliseconds."""

    id: str
    started_s: float = field(default_factory=time.perf_counter)
    product: str | None = None
    version: str | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    verdict: str | None = None
    code: str | None = None
    status: int = 0
    replayed: bool = False
    timings_ms: dict[str, float] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: (time.perf_counter() - start_s) * 1000.0})

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """Add times that somebody else measured, one stage after the other until now."""
        end_s = time.perf_counter()
        for stage, ms in reversed(list(timings_ms.items())):
            self.stages.append(Stage(stage, end_s - ms / 1000.0, end_s))
            end_s -= ms / 1000.0
        for stage, ms in timings_ms.items():
            self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + ms

    def total_ms(self) -> float:
        """Time since the request's head was read."""
        return (time.perf_counter() - self.started_s) * 1000.0

    def report_ms(self, *stages: str) -> dict[str, float]:
        """Those stages (0 where one did not run), whatever else was measured, and the total."""
        known = dict.fromkeys(stages, 0.0) | dict(self.measured()) | {"total": self.total_ms()}
        return {stage: round(ms, 3) for stage, ms in known.items()}

    def measured(self) -> list[tuple[str, float]]:
        """What is measured so far, copied at once: a given-up request's worker may still add."""
        return list(self.timings_ms.items())


class Telemetry:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self.tracing = tracing or Tracing()
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(GpuMemory())
        self.graphs = GraphMetrics(registry)
        self.requests = Counter(
            "flawsmith_requests",
            "Answered requests",
            ["route", "status", "product"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "flawsmith_request_seconds",
            "Head read to answer sent",
            ["route", "product"],
            buckets=SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "flawsmith_stage_seconds",
            "Time in one stage of a request",
            ["route", "stage", "product"],
            buckets=SECONDS,
            registry=registry,
        )
        self.queued = Gauge(
            "flawsmith_queued", "Requests that wait for a worker", registry=registry
        )
        self.pending = Gauge(
            "flawsmith_pending",
            "Requests that wait for a worker, by lane",
            ["lane", "product"],
            registry=registry,
        )
        self.running = Gauge("flawsmith_running", "Workers at work", registry=registry)
        self.decoded_bytes = Gauge(
            "flawsmith_decoded_bytes", "Pictures inside, decoded", registry=registry
        )
        self.defects = Counter(
            "flawsmith_defects", "Defects found", ["product", "label"], registry=registry
        )
        self.audited = Counter(
            "flawsmith_audited_pictures",
            "Pictures sliced as a whole after their crops; one in part counts in part",
            ["product"],
            registry=registry,
        )
        self.missed = Counter(
            "flawsmith_audit_missed_defects",
            "Defects that only an audit found",
            ["product", "label"],
            registry=registry,
        )
        self.rejected = Counter(
            "flawsmith_rejected_samples",
            "Synthetic samples that failed a check and were drawn again",
            ["product", "reason"],
            registry=registry,
        )
        self.bundles = Gauge(
            "flawsmith_bundle_info",
            "1 for each loaded bundle",
            ["product", "version", "provider"],
            registry=registry,
        )
        self.failed_loads = Counter(
            "flawsmith_bundle_load_failures",
            "Bundles that were refused, at the start or live",
            ["product"],
            registry=registry,
        )

        self.waiting = Gauge(
            "flawsmith_outbox_waiting", "Not yet delivered", ["place"], registry=registry
        )
        self.away = Gauge(
            "flawsmith_outbox_away", "1 while the place is away", ["place"], registry=registry
        )
        self.delivered = Counter(
            "flawsmith_outbox_delivered", "Delivered to the place", ["place"], registry=registry
        )
        self.dropped = Counter(
            "flawsmith_outbox_dropped",
            "Never delivered, and why: full, refused, stopped",
            ["place", "reason"],
            registry=registry,
        )

    def finish(self, trace: Trace, route: str) -> None:
        """Count an answered request and write its log line."""
        product = trace.product or ""
        self.requests.labels(route, str(trace.status), product).inc()
        self.request_seconds.labels(route, product).observe(trace.total_ms() / 1000.0)
        for stage, ms in trace.measured():
            self.stage_seconds.labels(route, stage, product).observe(ms / 1000.0)
        told = {name: getattr(trace, name) for name in TOLD}
        line = {"id": trace.id, "route": route, "status": trace.status, **trace.references, **told}
        line |= self.tracing.ids()
        LOG.info("request", extra={"fields": line | {"timings_ms": trace.report_ms()}})

    def trace(self, trace: Trace) -> None:
        """Put what is known of a request into its span, before its answer's end closes that."""
        told = {name: getattr(trace, name) for name in TOLD}
        self.tracing.tell(list(trace.stages), {"id": trace.id, **trace.references, **told})


class TraceMiddleware:
    """Give every request its id and trace, and finish them when the answer is out."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        trace = Trace(request_id(Headers(scope=scope).get("x-request-id")))
        scope.setdefault("state", {})["trace"] = trace

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = trace.id
            elif not message.get("more_body"):
                self.telemetry.trace(trace)
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self.telemetry.finish(trace, getattr(scope.get("route"), "path", "unmatched"))


def request_id(asked: str | None) -> str:
    """The client's id where it is a plain word of at most 128 characters, else a new one."""
    return asked if asked and REQUEST_ID.fullmatch(asked) else new_id()


def new_id() -> str:
    """A UUID whose order is the order in time (RFC 9562, version 7)."""
    value = (time.time_ns() // 1_000_000) << 80 | 7 << 76 | secrets.randbits(12) << 64
    return str(UUID(int=value | 0b10 << 62 | secrets.randbits(62)))


class JsonLines(logging.Formatter):
    """One log record, one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's own words, then its `fields`, then its trace."""
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps({name: _clipped(value) for name, value in line.items()}, default=str)


def _clipped(value: object) -> object:
    """A text as it is up to CLIP_CHARS, else its two ends: collectors cut or drop long lines."""
    if not isinstance(value, str) or len(value) <= CLIP_CHARS:
        return value
    half = CLIP_CHARS // 2
    return f"{value[:half]} … {value[-half:]}"


def write_logs_as_json(level: str) -> None:
    """Send every log record of this process to stdout as one JSON object a line."""
    lines = logging.StreamHandler(sys.stdout)
    lines.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[lines], force=True)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a broken form is no warning
