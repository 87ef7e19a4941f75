"""Spans of requests and their stages by OpenTelemetry, where the OTEL_* environment asks for them.

FastAPI makes the span of a request, in the trace that its `traceparent` names, and ends it with the
answer's last byte. The stages become its children just before.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from service.extras import extra_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
UNTRACED = ("/metrics", "/v2/health/")
"""What probes and collectors ask for, every few seconds."""

PATIENCE_S = 5.0


@dataclass(frozen=True)
class Stage:
    """A stretch of a request's time, in `time.perf_counter` seconds."""

    name: str
    start_s: float
    end_s: float


class Tracing:
    """Where one application's spans go; nowhere without a provider."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider

    def config(self) -> TelemetryConfig:
        """What FastAPI shall do: spans of requests alone, since metrics and logs are our own."""
        return TelemetryConfig(
            tracing=self._provider is not None,
            tracer_provider=self._provider,
            metrics=False,
            logs=False,
            operation_spans=False,
            auto_configure=False,
            exclude=lambda scope: str(scope.get("path", "")).startswith(UNTRACED),
        )

    def ids(self) -> dict[str, str]:
        """What finds the present request's trace again; empty where it has none."""
        context = get_current_span().get_span_context()
        if self._provider is None or not context.is_valid:
            return {}
        ids = (format_trace_id(context.trace_id), format_span_id(context.span_id))
        return dict(zip(("trace_id", "span_id"), ids, strict=True))

    def tell(self, stages: Iterable[Stage], about: Mapping[str, Any]) -> None:
        """Give the present request's span what is known about it, and a child for each stage."""
        span = get_current_span()
        if self._provider is None or not span.is_recording():
            return
        for name, value in about.items():
            if value is not None:
                span.set_attribute(f"flawsmith.{name}", value)
        began_ns = time.time_ns() - time.perf_counter_ns()
        tracer = self._provider.get_tracer("flawsmith")
        for stage in stages:
            child = tracer.start_span(stage.name, start_time=began_ns + int(stage.start_s * 1e9))
            child.end(began_ns + int(stage.end_s * 1e9))

    def close(self) -> None:
        """Send what still waits, for a few seconds at most. Blocking."""
        if self._provider is not None:
            sending = threading.Thread(target=self._provider.shutdown, daemon=True)
            sending.start()
            sending.join(PATIENCE_S)


def open_tracing() -> Tracing:
    """As OTEL_* says; off where it names no endpoint. Errors: ExtraMissing."""
    endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if endpoint is None or is_disabled or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return Tracing()
    with extra_of(endpoint, "telemetry"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    name = os.environ.get("OTEL_SERVICE_NAME", "flawsmith")
    provider = TracerProvider(
        resource=Resource.create({"service.name": name}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
