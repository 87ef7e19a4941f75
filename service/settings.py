"""SERVICE_* environment: how this deployment runs.

What the graphs mean stands in their manifest; nothing here changes a verdict, only whether, where
and how fast it is given. `docs/settings.md` is the same list for a reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from models.bundle import SHIPPED
from models.devices import (
    ArenaStrategy,
    ConvSearch,
    Device,
    DeviceKind,
    OpenvinoTarget,
    Tuning,
)
from models.steps.pictures import PictureLimits
from service.doors import Doors, words_of

TAKEN = PictureLimits()
"""What the decoder takes unless a deployment says otherwise."""
TUNING = Tuning()
"""How an accelerator works unless a deployment says otherwise."""


class Settings(Doors):
    """One deployment. Every field is an environment variable: `port` is `SERVICE_PORT`."""

    bundles: Path = Field(
        default=SHIPPED, description="folder of bundles: <product>/<version>/manifest.json"
    )
    watch_s: float = Field(
        default=0.0,
        ge=0.0,
        le=86400.0,
        description="look at the folder of bundles that often, and follow it; 0: never",
    )
    default_product: str | None = Field(
        default=None,
        description="product of a request that names none; default: brushed-plate, else the first",
    )
    device: DeviceKind = Field(
        default="auto",
        description="where the graphs run; auto takes CUDA when it is there, else the CPU, and "
        "tells which; any other that cannot be had stops the start",
    )
    device_ids: Annotated[tuple[Annotated[int, Field(ge=0)], ...], NoDecode] = Field(
        default=(0,), min_length=1, description="which of several GPUs, separated by commas"
    )
    cuda_conv_search: ConvSearch = Field(
        default=TUNING.conv_search,
        description="how cuDNN's convolutions are chosen; EXHAUSTIVE tries them all for each new "
        "size of picture",
    )
    cuda_arena_strategy: ArenaStrategy = Field(
        default=TUNING.arena,
        description="how GPU memory grows: by what is needed, or by powers of two",
    )
    cuda_memory_bytes: int = Field(
        default=TUNING.memory_bytes,
        ge=0,
        description="most GPU memory of one graph's arena, bytes; 0: all there is",
    )
    engine_cache: Path | None = Field(
        default=TUNING.engine_cache,
        description="folder where TensorRT and OpenVINO keep what they compiled for next time",
    )
    openvino_target: OpenvinoTarget = Field(
        default=TUNING.openvino_target, description="what OpenVINO runs on"
    )
    threads: int = Field(
        default=2, ge=0, le=256, description="CPU threads of each graph; 0 takes every core"
    )
    workers: int = Field(
        default=2, ge=1, le=64, description="detections that are computed at once, on each device"
    )
    bulk_workers: int = Field(
        default=1, ge=1, le=64, description="synthesis requests computed at once, on each device"
    )
    queue_size: int = Field(
        default=16,
        ge=0,
        le=4096,
        description="requests of each of the two kinds that may wait; one more is answered 429",
    )
    batch_size: int = Field(
        default=16,
        ge=1,
        le=256,
        description="most crops, of several detections, in one run of a segmenter; 1 shares none",
    )
    batch_samples: int = Field(
        default=1,
        ge=1,
        le=64,
        description="most samples, of several requests, in one run of a generator; above 1 the "
        "same seed may round to another pixel",
    )
    batch_window_ms: float = Field(
        default=0.0,
        ge=0.0,
        le=1000.0,
        description="how long a run waits for rows of other requests; 0 takes what waits already",
    )
    max_decoded_bytes: int = Field(
        default=1024**3,
        ge=1,
        description="most bytes of decoded pictures inside; one request alone is always let in",
    )
    max_bytes: int = Field(
        default=TAKEN.max_bytes,
        ge=1,
        description="largest request body, bytes; more is answered 413",
    )
    max_pixels: int = Field(
        default=TAKEN.max_pixels, ge=1, description="largest picture, pixels; read before decoding"
    )
    max_side_px: int = Field(
        default=TAKEN.max_side_px, ge=1, description="longest side of a picture, px"
    )
    max_side_ratio: float = Field(
        default=TAKEN.max_side_ratio,
        ge=1.0,
        description="most times that a picture's longer side is its shorter one",
    )
    max_crop_pixels: int = Field(
        default=20_000_000,
        ge=1,
        description="most pixels in the crops of one request, n × crop_size²",
    )
    max_response_pixels: int = Field(
        default=50_000_000,
        ge=1,
        description="most pixels in one JSON answer's pictures; one sample is always allowed",
    )
    audit_share: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="share of /detect requests that are audited: sliced whole after their crops",
    )
    timeout_s: float = Field(
        default=60.0,
        gt=0.0,
        le=3600.0,
        description="longest time of one request, upload and answer included; then 504",
    )
    drain_s: float = Field(
        default=20.0, ge=0.0, le=3600.0, description="time for running requests after SIGTERM"
    )
    retry_after_s: int = Field(
        default=1, ge=1, le=3600, description="least Retry-After of 429 and 503 answers, seconds"
    )
    database: SecretStr | None = Field(
        default=None, description="where inspections are recorded: sqlite:///FILE or postgresql://…"
    )
    retention_days: float | None = Field(
        default=None, gt=0.0, le=36_500.0, description="age of the oldest record; default: any"
    )
    outbox_bytes: int = Field(
        default=67_108_864, ge=0, description="most bytes that wait for a place which is away"
    )
    webhook_url: SecretStr | None = Field(
        default=None, description="where inspections are posted: http(s)://HOST/PATH"
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="what those are signed with: whsec_ and base64"
    )
    mqtt_url: SecretStr | None = Field(
        default=None, description="where inspections are published: mqtt(s)://USER:PASSWORD@HOST"
    )
    mqtt_topic: str = Field(
        default="flawsmith/{product}/inspections", description="the topic of those"
    )
    idempotency_s: int = Field(
        default=86_400, ge=1, description="how long an answer is kept under its Idempotency-Key"
    )
    idempotency_bytes: int = Field(
        default=67_108_864, ge=0, description="most bytes of such answers; the oldest go first"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe log line that is written"
    )

    @field_validator("device_ids", mode="before")
    @classmethod
    def split_list(cls, value: object) -> object:
        """Read `a,b` as two."""
        return words_of(value) if isinstance(value, str) else value

    @field_validator("device_ids")
    @classmethod
    def refuse_twins(cls, ids: tuple[int, ...]) -> tuple[int, ...]:
        """One engine for each device: one that is named twice would run against itself."""
        if len(set(ids)) < len(ids):
            raise ValueError("a device is named twice")
        return ids

    def device_at(self, index: int) -> Device:
        """One of the devices that the graphs run on."""
        tuning = Tuning(
            conv_search=self.cuda_conv_search,
            arena=self.cuda_arena_strategy,
            memory_bytes=self.cuda_memory_bytes,
            engine_cache=self.engine_cache,
            openvino_target=self.openvino_target,
        )
        return Device(self.device, self.threads, index, tuning)
