"""POST /synthesize: normal picture in, defect pictures and masks out, as JSON or a zip stream."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from models.arrays import Mask
from models.bundle import Bundle
from models.errors import ParameterInvalid
from models.steps.controls import parse_shares
from models.steps.pictures import encode_png
from models.synthesis import SynthesisRequest, Synthetic, synthesize
from service.archives import Archive
from service.deps import AcceptedType, BulkVisit, Visit, single_parameters
from service.schemas import (
    Box,
    ImageOut,
    ProductQuery,
    RegionOut,
    SampleOut,
    SynthesisOut,
    base64_of,
    measures_of,
    scale_of,
)
from service.uploads import Upload, body_schema

router = APIRouter(tags=["synthesis"], dependencies=[Depends(single_parameters)])

Number = TypeVar("Number", int, float)
MAX_SEED = 2**53 - 64
"""Sample i has seed + i, and every one of them survives a JavaScript number."""


class SynthesisQuery(ProductQuery):
    """What `POST /synthesize` can be asked."""

    count: int = Field(default=1, ge=1, le=64, description="how many samples")
    defects: int = Field(default=1, ge=1, le=16, description="defects in each sample")
    label: str | None = Field(default=None, description="type of defect; default: any")
    labels: str | None = Field(
        default=None,
        max_length=1000,
        description="pitting:3,scratch:1: shares by which types are drawn, in place of `label`",
    )
    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, description="sample i has seed + i; default: drawn, told"
    )
    region: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,6}(,[0-9]{1,6}){3}$",
        description="x,y,width,height: where defects may lie; default: the object, as found",
    )

    size_px: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,6},[0-9]{1,6}$",
        description="min,max: longest side of a defect's box, px; default: as real ones",
    )
    contrast: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,3}(\.[0-9]{1,6})?,[0-9]{1,3}(\.[0-9]{1,6})?$",
        description="min,max: mean change inside a defect, grey levels of 255; default: as painted",
    )

    def request(self, seed: int, mask: Mask | None) -> SynthesisRequest:
        """What the story is asked. Errors: ParameterInvalid."""
        return SynthesisRequest(
            seed=seed,
            count=self.count,
            defects=self.defects,
            label=self.label,
            labels=None if self.labels is None else parse_shares(self.labels),
            region=self.region_box(),
            size_px=_pair(self.size_px, int),
            contrast=_pair(self.contrast, float),
            mask=mask,
        )

    def region_box(self) -> Box | None:
        """The region as numbers."""
        if self.region is None:
            return None
        x, y, width, height = map(int, self.region.split(","))
        return x, y, width, height


@router.post(
    "/synthesize",
    response_model=SynthesisOut,
    responses={200: {"content": {"application/zip": {}}}},
    openapi_extra=body_schema("image", "mask"),
)
async def synthesize_defects(
    query: Annotated[SynthesisQuery, Query()], accepted: AcceptedType, visit: BulkVisit
) -> Response:
    """Put new defects on one normal picture."""
    bundle = visit.pick(query)
    seed = secrets.randbelow(MAX_SEED) if query.seed is None else query.seed
    order = Order(visit, bundle, await visit.upload(bundle, "image", "mask"), query, seed)

    async def answer() -> Response:
        if accepted == "application/json":
            return Response(await visit.run(order.as_json), media_type=accepted)
        archive = await visit.run(order.as_archive)
        return StreamingResponse(stream(archive, visit), media_type=accepted)

    return await visit.once(order.upload, answer)


@dataclass(frozen=True)
class Order:
    """What one request asks for. Its methods block: they are for a worker's thread."""

    visit: Visit
    bundle: Bundle
    upload: Upload
    query: SynthesisQuery
    seed: int

    def as_json(self) -> bytes:
        """The whole answer. Errors: ParameterInvalid when it would not fit into memory."""
        trace, manifest = self.visit.trace, self.bundle.manifest
        image_hw, made = self.begin()
        self._require_fit(image_hw)
        rejected: Counter[str] = Counter()
        samples = []
        for sample, image, mask in self.encode(made):
            rejected.update(sample.rejected)
            samples.append(self._sample_out(sample, image, mask))
        answer = SynthesisOut(
            id=trace.id,
            product=manifest.product,
            version=manifest.version,
            **trace.references,
            seed=self.seed,
            image=ImageOut.of(image_hw),
            samples=samples,
            rejected=rejected.total(),
            rejected_by_reason=rejected,
            timings_ms=trace.report_ms("queue", "decode", "mask", "defect", "encode"),
        )
        return answer.model_dump_json().encode()

    def as_archive(self) -> Archive:
        """The answer as a zip file, its first sample inside."""
        manifest = self.bundle.manifest
        about: dict[str, str | int] = {
            "id": self.visit.trace.id,
            "product": manifest.product,
            "version": manifest.version,
            "seed": self.seed,
            **self.visit.trace.references,
        }
        image_hw, made = self.begin()
        return Archive(self.encode(made), image_hw, manifest.labels, about)

    def begin(self) -> tuple[tuple[int, int], Iterator[Synthetic]]:
        """The picture's size, and its samples as they are made."""
        limits = self.visit.limits(self.bundle)
        with self.visit.trace.measure("decode"):
            picture = self.upload.picture(limits)
            mask = self.upload.decoded_mask(limits)
        request = self.query.request(self.seed, mask)
        return picture.hw, self._noted(synthesize(picture, request, self.bundle.synthesizer))

    def encode(self, samples: Iterator[Synthetic]) -> Iterator[tuple[Synthetic, bytes, bytes]]:
        """Each sample with its picture and mask as PNG files.

        They are encoded in other threads while the next samples are made; `encode` is the time
        that is left to wait for them.
        """
        engine, trace = self.visit.services.engine, self.visit.trace
        works = (encode_picture, encode_mask)
        for sample, files in engine.spread(samples, self.visit.ticket, *works):
            with trace.measure("encode"):
                image, mask = (file.result() for file in files)
            yield sample, image, mask

    def _noted(self, samples: Iterator[Synthetic]) -> Iterator[Synthetic]:
        """The same samples, counted; no batch is begun that nobody waits for."""
        rejected = self.visit.services.telemetry.rejected
        for sample in samples:
            self.visit.trace.add(sample.timings_ms)
            for reason, count in sample.rejected.items():
                rejected.labels(self.bundle.manifest.product, reason).inc(count)
            yield sample
            self.visit.ticket.go_on()

    def _require_fit(self, image_hw: tuple[int, int]) -> None:
        count, most = self.query.count, self.visit.services.settings.max_response_pixels
        if count > 1 and count * image_hw[0] * image_hw[1] > most:
            reason = (
                f"{count} such pictures do not fit into JSON; ask for `Accept: application/zip`"
            )
            raise ParameterInvalid("count", reason)

    def _sample_out(self, sample: Synthetic, image: bytes, mask: bytes) -> SampleOut:
        scale = scale_of(self.bundle.manifest)
        defects = [RegionOut(**measures_of(d.label, d.region, scale)) for d in sample.defects]
        return SampleOut(
            seed=sample.seed, image=base64_of(image), mask=base64_of(mask), defects=defects
        )


def encode_picture(sample: Synthetic) -> bytes:
    """The sample's picture as a PNG file."""
    return encode_png(sample.pixels)


def encode_mask(sample: Synthetic) -> bytes:
    """The sample's mask as a PNG file."""
    return encode_png(sample.mask)


async def stream(archive: Archive, visit: Visit) -> AsyncIterator[bytes]:
    """The archive's bytes. Each sample waits for a worker anew, so a slow reader holds none."""
    while taken := await visit.run(archive.take):
        yield taken


def _pair(text: str | None, number: Callable[[str], Number]) -> tuple[Number, Number] | None:
    if text is None:
        return None
    least, most = map(number, text.split(","))
    return least, most
