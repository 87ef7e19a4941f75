"""POST /synthesize: normal picture in, defect pictures and masks out, as JSON or a zip stream."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from models.bundle import Bundle
from models.errors import ParameterInvalid
from models.steps.pictures import encode_png
from models.synthesis import SynthesisRequest, Synthetic, synthesize
from service.deps import AcceptedType, Visit, VisitDep, single_parameters
from service.schemas import (
    Box,
    CocoAnnotationOut,
    CocoCategoryOut,
    CocoImageOut,
    CocoOut,
    ImageOut,
    KnownParametersOnly,
    RegionOut,
    SampleOut,
    SynthesisOut,
    base64_of,
    measures_of,
    scale_of,
)
from service.uploads import Upload, body_schema

router = APIRouter(tags=["synthesis"], dependencies=[Depends(single_parameters)])

MAX_SEED = 2**53 - 64
"""Sample i has seed + i, and every one of them survives a JavaScript number."""


class SynthesisQuery(KnownParametersOnly):
    """What `POST /synthesize` can be asked."""

    count: int = Field(default=1, ge=1, le=64, description="how many samples")
    defects: int = Field(default=1, ge=1, le=16, description="defects in each sample")
    label: str | None = Field(default=None, description="type of defect; default: any")
    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, description="sample i has seed + i; default: drawn, told"
    )
    region: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,6}(,[0-9]{1,6}){3}$",
        description="x,y,width,height: where defects may lie; default: the object, as found",
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
    query: Annotated[SynthesisQuery, Query()], accepted: AcceptedType, visit: VisitDep
) -> Response:
    """Put new defects on one normal picture."""
    bundle = visit.pick(query.product, query.version)
    seed = secrets.randbelow(MAX_SEED) if query.seed is None else query.seed
    order = Order(visit, bundle, await visit.upload("image", "mask"), query, seed)
    if accepted == "application/json":
        return Response(await visit.run(order.as_json), media_type=accepted)
    archive = await visit.run(partial(Archive, order))
    return StreamingResponse(stream(archive, visit), media_type=accepted)


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
        for sample in made:
            rejected.update(sample.rejected)
            samples.append(self._sample_out(sample))
        answer = SynthesisOut(
            id=trace.id,
            product=manifest.product,
            version=manifest.version,
            seed=self.seed,
            image=ImageOut.of(image_hw),
            samples=samples,
            rejected=rejected.total(),
            rejected_by_reason=rejected,
            timings_ms=trace.report_ms("queue", "decode", "mask", "defect", "encode"),
        )
        return answer.model_dump_json().encode()

    def begin(self) -> tuple[tuple[int, int], Iterator[Synthetic]]:
        """The picture's size, and its samples as they are made."""
        limits = self.visit.limits(self.bundle)
        with self.visit.trace.measure("decode"):
            picture = self.upload.picture(limits)
            mask = self.upload.decoded_mask(limits)
        request = SynthesisRequest(
            count=self.query.count,
            defects=self.query.defects,
            label=self.query.label,
            seed=self.seed,
            region=self.query.region_box(),
            mask=mask,
        )
        return picture.hw, self._noted(synthesize(picture, request, self.bundle.synthesizer))

    def encode(self, sample: Synthetic) -> tuple[bytes, bytes]:
        """Picture and mask as PNG files."""
        with self.visit.trace.measure("encode"):
            return encode_png(sample.pixels), encode_png(sample.mask)

    def _noted(self, samples: Iterator[Synthetic]) -> Iterator[Synthetic]:
        """The same samples, counted; none is begun that nobody waits for."""
        rejected = self.visit.services.telemetry.rejected
        for sample in samples:
            self.visit.trace.add(sample.timings_ms)
            for reason, count in sample.rejected.items():
                rejected.labels(self.bundle.manifest.product, reason).inc(count)
            yield sample
            self.visit.go_on()

    def _require_fit(self, image_hw: tuple[int, int]) -> None:
        count, most = self.query.count, self.visit.services.settings.max_response_pixels
        if count > 1 and count * image_hw[0] * image_hw[1] > most:
            reason = (
                f"{count} such pictures do not fit into JSON; ask for `Accept: application/zip`"
            )
            raise ParameterInvalid("count", reason)

    def _sample_out(self, sample: Synthetic) -> SampleOut:
        image, mask = map(base64_of, self.encode(sample))
        scale = scale_of(self.bundle.manifest)
        defects = [RegionOut(**measures_of(d.label, d.region, scale)) for d in sample.defects]
        return SampleOut(seed=sample.seed, image=image, mask=mask, defects=defects)


class Archive:
    """The samples of one order as a zip file that grows: one sample in memory at a time.

    Made with its first sample inside, so that an order that cannot be met fails before the answer
    has begun. Entries are deflate streams of level 0: a stored entry of unknown length could not
    be read before the whole file is there. Blocking: for a worker's thread.
    """

    def __init__(self, order: Order) -> None:
        manifest = order.bundle.manifest
        image_hw, samples = order.begin()
        self.order = order
        self.image_hw = image_hw
        self.samples = enumerate(samples)
        self.rejected: Counter[str] = Counter()
        self.category_ids = {label: index for index, label in enumerate(manifest.labels, start=1)}
        self.images: list[CocoImageOut] = []
        self.annotations: list[CocoAnnotationOut] = []
        self.written = Chunks()
        self.zip = ZipFile(self.written, "w")
        self._write_next()

    def take(self) -> bytes:
        """The bytes that follow those taken before; empty at the end."""
        if not self.written.chunks and not self.written.is_complete:
            self._write_next()
        return self.written.take()

    def _write_next(self) -> None:
        index, sample = next(self.samples, (None, None))
        if index is None or sample is None:
            self._write("annotations.json", self._annotations().model_dump_json().encode())
            self.zip.close()
            self.written.is_complete = True
            return
        image, mask = self.order.encode(sample)
        entry = self._note(index, sample)
        self._write(entry.file_name, image)
        self._write(entry.mask_file_name, mask)

    def _note(self, index: int, sample: Synthetic) -> CocoImageOut:
        image = CocoImageOut(
            id=index,
            file_name=f"image_{index:04d}.png",
            mask_file_name=f"mask_{index:04d}.png",
            width=self.image_hw[1],
            height=self.image_hw[0],
            seed=sample.seed,
        )
        self.images.append(image)
        self.rejected.update(sample.rejected)
        for defect in sample.defects:
            ids = (len(self.annotations) + 1, self.category_ids[defect.label])
            self.annotations.append(CocoAnnotationOut.of(defect, image, ids))
        return image

    def _annotations(self) -> CocoOut:
        manifest = self.order.bundle.manifest
        return CocoOut(
            info={
                "id": self.order.visit.trace.id,
                "product": manifest.product,
                "version": manifest.version,
                "seed": self.order.seed,
                "rejected": self.rejected.total(),
                "rejected_by_reason": self.rejected,
            },
            images=self.images,
            annotations=self.annotations,
            categories=[CocoCategoryOut(id=i, name=n) for n, i in self.category_ids.items()],
        )

    def _write(self, name: str, data: bytes) -> None:
        self.zip.writestr(ZipInfo(name), data, ZIP_DEFLATED, 0)


class Chunks:
    """A file for `ZipFile` to write once, taken away in pieces."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.is_complete = False

    def write(self, data: bytes, /) -> int:
        """Keep it until it is taken."""
        self.chunks.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered elsewhere."""

    def close(self) -> None:
        """Nothing to let go of."""

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self.chunks)
        self.chunks.clear()
        return taken


async def stream(archive: Archive, visit: Visit) -> AsyncIterator[bytes]:
    """The archive's bytes. Each sample waits for a worker anew, so a slow reader holds none."""
    while taken := await visit.run(archive.take):
        yield taken
