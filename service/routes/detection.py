"""POST /detect: large picture in, top-n crops and defect polygons out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field, TypeAdapter, ValidationError

from models.audit import Audit, audit
from models.bundle import Bundle
from models.detection import Detection, Detector, detect
from models.errors import ParameterInvalid
from models.inspection import Rule, Zones
from models.steps.crops import cut_crop
from models.steps.fields import ConfidenceField
from models.steps.pictures import Picture, encode_jpeg, encode_png
from models.surroundings import Crop
from service.deps import DetectionVisit, Visit, single_parameters
from service.records.inspections import Record, inspection_of
from service.schemas import (
    AuditOut,
    CropOut,
    DefectOut,
    DetectionOut,
    ImageOut,
    ProductQuery,
    ToleratedOut,
    base64_of,
)
from service.uploads import Upload, body_schema

router = APIRouter(tags=["detection"], dependencies=[Depends(single_parameters)])

Ratio = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
CropImages = Literal["none", "jpeg", "png"]
Json = Annotated[str, Field(max_length=16384)]
Asked = TypeVar("Asked")
ZONES: TypeAdapter[Zones] = TypeAdapter(Zones)
TIME_TO_ANSWER = 0.3
"""Share of a request's time that an audit leaves for its outlines and the answer."""
RULES: TypeAdapter[tuple[Rule, ...]] = TypeAdapter(tuple[Rule, ...])


class DetectionQuery(ProductQuery):
    """What `POST /detect` can be asked."""

    n: int | None = Field(default=None, ge=1, le=64, description="most crops to look into")
    crop_size: int | None = Field(
        default=None, ge=16, le=4096, description="side of the square crops, px"
    )
    min_confidence: Ratio | None = Field(
        default=None, description="a peak below it gets no crop; 0 gives always n crops"
    )
    min_score: Ratio | None = Field(
        default=None, description="a region below it is not a defect; 0 returns every region"
    )
    review_score: Ratio | None = Field(
        default=None,
        description="a region from it to min_score is told in `tolerated` and asks for a review; "
        "default: the manifest's, where it has one",
    )
    extra_crops: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="most crops beyond n, where a defect goes on unseen; default: none where `n` "
        "is asked for, else the manifest's, as far as SERVICE_MAX_CROP_PIXELS allows",
    )
    merge_gap: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="parts of a label with at most so many px between them are one defect",
    )
    zones: Json | None = Field(
        default=None,
        description="where defects are looked for, JSON as `detection.zones` of the manifest: "
        '`{"look":[{"points":[[0,0],[0.5,0],[0.5,1]]}],"ignore":[],"on_object":true}`; a zone\'s '
        "`frame` is `picture` (shares of it), `object` (shares of its box) or `px`",
    )
    rules: Json | None = Field(
        default=None,
        description="what is let pass, JSON as `detection.rules` of the manifest: "
        '`[{"label":"pit","under":{"area_px":40},"allowed":3}]`; the first that fits decides',
    )
    audit: bool | None = Field(
        default=None,
        description="slice the whole picture as well, and tell what the crops missed; takes as "
        "long as slicing does, within the request's time; default: by SERVICE_AUDIT_SHARE",
    )
    crop_images: CropImages = Field(
        default="none", description="each crop carries its picture, base64"
    )
    confidence_matrix: Literal["none", "png"] = Field(
        default="none", description="16-bit grey at the input's size, 65535 = 1.0, base64"
    )
    mm_per_px: float | None = Field(
        default=None,
        gt=0.0,
        le=1000.0,
        allow_inf_nan=False,
        description="scale; default: the manifest's",
    )


@router.post("/detect", response_model=DetectionOut, openapi_extra=body_schema("image"))
async def detect_defects(
    query: Annotated[DetectionQuery, Query()], visit: DetectionVisit
) -> Response:
    """Find the defects of one picture."""
    bundle = visit.pick(query)
    detector = asked_detector(bundle, query, visit.services.settings.max_crop_pixels)
    upload = await visit.upload(bundle, "image")

    async def answer() -> Response:
        found = partial(find_defects, visit, upload, bundle, detector, query)
        if is_audited(query.audit, visit.services.settings.audit_share):
            answered = visit.run_audited(found, can_wait=query.audit is True)
        else:
            answered = visit.run(partial(found, False))
        body, record = await answered
        visit.services.recording.note(record)
        return Response(body, media_type="application/json")

    return await visit.once(upload, answer)


def asked_detector(bundle: Bundle, query: DetectionQuery, max_crop_pixels: int) -> Detector:
    """The bundle's detector with the request's parameters.

    Errors: ParameterInvalid when its crops would take more memory than the service gives. The
    manifest's `extra_crops` are fewer then; asked for, they are refused too.
    """
    detector = (
        bundle.detector if query.mm_per_px is None else bundle.detector.at_scale(query.mm_per_px)
    )
    detector = detector.with_params(
        n=query.n,
        crop_size_px=query.crop_size,
        min_confidence=query.min_confidence,
        min_score=query.min_score,
        review_score=query.review_score,
        extra_crops=query.extra_crops,
        merge_gap_px=query.merge_gap,
        zones=_read_json("zones", query.zones, ZONES),
        rules=_read_json("rules", query.rules, RULES),
    )
    n, side_px = detector.params.n, detector.params.crop_size_px
    left = max_crop_pixels // side_px**2 - n
    if left < 0:
        reason = f"{n} crops of {side_px}² px are more than {max_crop_pixels} pixels"
        raise ParameterInvalid("crop_size", reason)
    if left < (query.extra_crops or 0):
        reason = f"{left} more crops of {side_px}² px are all that {max_crop_pixels} pixels allow"
        raise ParameterInvalid("extra_crops", reason)
    return detector.with_params(extra_crops=min(left, detector.params.extra_crops))


def is_audited(asked: bool | None, share: float, draw: Callable[[], float] = random.random) -> bool:
    """Whether a request is audited: as it asks, else by chance. `draw` gives 0 <= x < 1."""
    return draw() < share if asked is None else asked


def find_defects(
    visit: Visit,
    upload: Upload,
    bundle: Bundle,
    detector: Detector,
    query: DetectionQuery,
    may_audit: bool,
) -> tuple[bytes, Record | None]:
    """The whole answer as JSON, and what is recorded of it. Blocking: for a worker's thread."""
    trace, manifest = visit.trace, bundle.manifest
    scale = detector.mm_per_px
    with trace.measure("decode"):
        picture = upload.picture(visit.limits(bundle))
    wants_matrix = query.confidence_matrix == "png"
    detection = detect(picture, detector, wants_matrix=wants_matrix)
    trace.add(detection.timings_ms)
    trace.verdict = detection.verdict
    for defect in detection.defects:
        visit.services.telemetry.defects.labels(manifest.product, defect.label).inc()
    audited = None
    if may_audit:
        audited = audit_picture(visit, picture, detection, detector)
    with trace.measure("encode"):
        pictures = encode_crops(picture, detection.crops, query.crop_images)
        matrix = encode_matrix(detection.field) if wants_matrix else None
    answer = DetectionOut(
        id=trace.id,
        product=manifest.product,
        version=manifest.version,
        **trace.references,
        image=ImageOut.of(picture.hw),
        verdict=detection.verdict,
        decision=detection.decision,
        crops=list(map(CropOut.of, detection.crops, pictures)),
        defects=[DefectOut.of(defect, scale) for defect in detection.defects],
        tolerated=[ToleratedOut.of_tolerated(one, scale) for one in detection.tolerated],
        budget_exhausted=detection.budget_exhausted,
        confidence_matrix=matrix,
        audit=AuditOut.of(audited, scale) if audited else None,
        timings_ms=trace.report_ms("queue", "decode", "locate", "segment", "outline"),
    )
    record = None
    if visit.services.recording.is_on:
        record = Record.of(inspection_of(answer, upload.image, bundle, query))
    return answer.model_dump_json().encode(), record


def audit_picture(
    visit: Visit, picture: Picture, detection: Detection, detector: Detector
) -> Audit:
    """Audit a detection for as long as there is time, and count what it missed.

    Errors: ClientDisconnect when nobody waits any more.
    """
    telemetry, product = visit.services.telemetry, visit.trace.product
    go_on = partial(visit.has_time, TIME_TO_ANSWER)
    audited = audit(picture, detection, detector, go_on=go_on)
    visit.trace.add({"audit": audited.took_ms})
    telemetry.audited.labels(product).inc(audited.slices / max(audited.of_slices, 1))
    for defect in audited.missed:
        telemetry.missed.labels(product, defect.label).inc()
    return audited


def encode_crops(picture: Picture, crops: Sequence[Crop], form: CropImages) -> list[bytes | None]:
    """Each crop as the segmenter saw it, before it was resized."""
    if form == "none":
        return [None] * len(crops)
    image = picture.as_rgb8()
    encode = encode_jpeg if form == "jpeg" else encode_png
    return [encode(cut_crop(image, crop.window)) for crop in crops]


def encode_matrix(field: ConfidenceField) -> str:
    """A confidence matrix as a base64 PNG, 16-bit grey, 65535 = 1.0."""
    grey = np.rint(field.matrix() * np.float32(65535.0)).astype(np.uint16)
    return base64_of(encode_png(grey))


def _read_json(name: str, text: str | None, kind: TypeAdapter[Asked]) -> Asked | None:
    """Errors: ParameterInvalid, with the place inside that is wrong."""
    if text is None:
        return None
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        (first, *_) = error.errors()
        place = ".".join(map(str, first["loc"]))[:64]  # it may be the client's own word
        raise ParameterInvalid(
            name, f"{place}: {first['msg']}" if place else first["msg"]
        ) from None
