"""POST /detect: large picture in, top-n crops and defect polygons out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from models.bundle import Bundle
from models.detection import Crop, Detector, detect
from models.errors import ParameterInvalid
from models.steps.crops import Window, cut_crop
from models.steps.fields import ConfidenceField
from models.steps.pictures import Picture, encode_jpeg, encode_png
from service.deps import Visit, VisitDep, single_parameters
from service.schemas import (
    CropOut,
    DefectOut,
    DetectionOut,
    ImageOut,
    KnownParametersOnly,
    base64_of,
    scale_of,
)
from service.uploads import Upload, body_schema

router = APIRouter(tags=["detection"], dependencies=[Depends(single_parameters)])

Ratio = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
CropImages = Literal["none", "jpeg", "png"]


class DetectionQuery(KnownParametersOnly):
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
async def detect_defects(query: Annotated[DetectionQuery, Query()], visit: VisitDep) -> Response:
    """Find the defects of one picture."""
    bundle = visit.pick(query.product, query.version)
    detector = asked_detector(bundle, query, visit.services.settings.max_crop_pixels)
    upload = await visit.upload("image")
    answer = await visit.run(partial(find_defects, visit, upload, bundle, detector, query))
    return Response(answer, media_type="application/json")


def asked_detector(bundle: Bundle, query: DetectionQuery, max_crop_pixels: int) -> Detector:
    """The bundle's detector with the request's parameters.

    Errors: ParameterInvalid when its crops would take more memory than the service gives.
    """
    detector = bundle.detector.with_params(
        n=query.n,
        crop_size_px=query.crop_size,
        min_confidence=query.min_confidence,
        min_score=query.min_score,
    )
    n, side_px = detector.params.n, detector.params.crop_size_px
    if n * side_px**2 > max_crop_pixels:
        reason = f"{n} crops of {side_px}² px are more than {max_crop_pixels} pixels"
        raise ParameterInvalid("crop_size", reason)
    return detector


def find_defects(
    visit: Visit, upload: Upload, bundle: Bundle, detector: Detector, query: DetectionQuery
) -> bytes:
    """The whole answer as JSON. Blocking: for a worker's thread."""
    trace, manifest = visit.trace, bundle.manifest
    scale = query.mm_per_px or scale_of(manifest)
    with trace.measure("decode"):
        picture = upload.picture(visit.limits(bundle))
    detection = detect(picture, detector)
    trace.add(detection.timings_ms)
    trace.verdict = detection.verdict
    for defect in detection.defects:
        visit.services.telemetry.defects.labels(manifest.product, defect.label).inc()
    with trace.measure("encode"):
        pictures = encode_crops(picture, detection.crops, query.crop_images)
        matrix = encode_matrix(detection.field) if query.confidence_matrix == "png" else None
    answer = DetectionOut(
        id=trace.id,
        product=manifest.product,
        version=manifest.version,
        image=ImageOut.of(picture.hw),
        verdict=detection.verdict,
        crops=list(map(CropOut.of, detection.crops, pictures)),
        defects=[DefectOut.of(defect, scale) for defect in detection.defects],
        budget_exhausted=detection.budget_exhausted,
        confidence_matrix=matrix,
        timings_ms=trace.report_ms("queue", "decode", "locate", "segment", "outline"),
    )
    return answer.model_dump_json().encode()


def encode_crops(picture: Picture, crops: Sequence[Crop], form: CropImages) -> list[bytes | None]:
    """Each crop as the segmenter saw it, before it was resized."""
    if form == "none":
        return [None] * len(crops)
    image = picture.as_rgb8()
    encode = encode_jpeg if form == "jpeg" else encode_png
    return [encode(cut_crop(image, Window(*crop.box[:3]))) for crop in crops]


def encode_matrix(field: ConfidenceField) -> str:
    """A confidence matrix as a base64 PNG, 16-bit grey, 65535 = 1.0."""
    grey = np.rint(field.matrix() * np.float32(65535.0)).astype(np.uint16)
    return base64_of(encode_png(grey))
