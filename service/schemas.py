"""The wire: what clients see. The contract fixes names and units; here they are written once."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict
from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from models.audit import Audit
from models.findings import Defect
from models.manifest import Manifest
from models.rules import Decision, Tolerated, Verdict
from models.steps.outlines import MinAreaRect, Polygon, Region
from models.surroundings import Crop

Point = tuple[float, float]
Box = tuple[int, int, int, int]
Reference = Annotated[
    str,
    Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9(][A-Za-z0-9 ._:/+#@=()*-]*$"),
]
"""A name that the client's own systems use; it can stand in any log, table or message as it is."""


class References(BaseModel):
    """Whose picture it is, in the words of OPC 40100-1; comes back in the answer, the log, records.

    None of them decides anything.
    """

    part_id: Reference | None = Field(default=None, description="the part that was looked at")
    job_id: Reference | None = Field(default=None, description="the production job it belongs to")
    recipe_id: Reference | None = Field(default=None, description="the recipe that asked for it")
    meas_id: Reference | None = Field(default=None, description="this measurement of the part")

    def references(self) -> dict[str, str]:
        """Those that are given."""
        told = {name: getattr(self, name) for name in References.model_fields}
        return {name: text for name, text in told.items() if text is not None}


class ProductQuery(References):
    """Which product is asked, for whose picture. A parameter nobody knows is a typing error."""

    product: str | None = Field(default=None, description="default: the service's")
    version: str | None = Field(default=None, description="default: the newest")

    @model_validator(mode="before")
    @classmethod
    def name_the_unknown(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Refuse the first unknown parameter, and say which ones there are."""
        unknown = next((name for name in given if name not in cls.model_fields), None)
        if unknown is not None:
            told = {"field": unknown[:64], "known": ", ".join(cls.model_fields)}
            raise PydanticCustomError("unknown_parameter", "unknown; known are: {known}", told)
        return given


class ImageOut(BaseModel):
    """Size of the upright picture, px."""

    width: int
    height: int

    @classmethod
    def of(cls, size_hw: tuple[int, int]) -> ImageOut:
        """From (height, width)."""
        return cls(width=size_hw[1], height=size_hw[0])


class PolygonOut(BaseModel):
    """Closed rings along pixel edges, (x, y) in px; the first point is not repeated."""

    exterior: list[Point]
    holes: list[list[Point]]

    @classmethod
    def of(cls, polygon: Polygon) -> PolygonOut:
        """From arrays; they need no validation, and there can be many points."""
        return cls.model_construct(
            exterior=points_of(polygon.exterior), holes=[points_of(hole) for hole in polygon.holes]
        )


class MinAreaRectOut(BaseModel):
    """The smallest rectangle around a region, turned by `angle_deg`."""

    center: Point
    size: Point
    size_mm: Point | None = Field(default=None, description="`size` where the scale is known")
    angle_deg: float

    @classmethod
    def of(cls, rect: MinAreaRect, mm_per_px: float | None) -> MinAreaRectOut:
        """With millimetres where the scale is known."""
        width, height = rect.size_px
        size_mm = None if mm_per_px is None else (width * mm_per_px, height * mm_per_px)
        return cls(
            center=rect.center_xy, size=rect.size_px, size_mm=size_mm, angle_deg=rect.angle_deg
        )


class RegionOut(BaseModel):
    """One connected region: where it is and how large."""

    label: str
    polygon: PolygonOut
    box: Box
    area_px: float = Field(description="pixels")
    area_mm: float | None = Field(
        default=None, description="twin of `area_px`, square millimetres, where the scale is known"
    )


class DefectOut(RegionOut):
    """One defect in full-image coordinates, however many crops saw it."""

    score: float
    centroid: Point
    min_area_rect: MinAreaRectOut
    length_px: float = Field(description="the longest way along its middle line, end to end")
    length_mm: float | None = Field(default=None, description="twin of `length_px`")
    width_px: float = Field(description="where it is widest: the largest disc that fits in")
    width_mm: float | None = Field(default=None, description="twin of `width_px`")
    mean_width_px: float = Field(description="area ÷ length")
    mean_width_mm: float | None = Field(default=None, description="twin of `mean_width_px`")
    truncated: bool = Field(description="goes on where no crop looked")
    crops: list[int]

    @classmethod
    def of(cls, defect: Defect, mm_per_px: float | None) -> DefectOut:
        """With millimetres where the scale is known."""
        return cls(**findings_of(defect, mm_per_px))


class ToleratedOut(DefectOut):
    """A defect that does not make the picture `ng`, and why."""

    reason: Literal["rule", "score"] = Field(
        description="`rule`: one of the product's rules lets it pass; `score`: between the limits "
        "`review_score` and `min_score`, so a person should look"
    )

    @classmethod
    def of_tolerated(cls, tolerated: Tolerated, mm_per_px: float | None) -> ToleratedOut:
        """With millimetres where the scale is known."""
        return cls(**findings_of(tolerated.defect, mm_per_px), reason=tolerated.reason)


class AuditOut(BaseModel):
    """What slicing the whole picture found beyond the crops. It never changes the verdict."""

    slices: int = Field(description="slices looked into; fewer than `of_slices` where time ran out")
    of_slices: int = Field(description="slices that cover every place that counts")
    missed: list[DefectOut] = Field(
        description="defects that only the audit found; their score is the segmenter's alone"
    )

    @classmethod
    def of(cls, audit: Audit, mm_per_px: float | None) -> AuditOut:
        """With millimetres where the scale is known."""
        missed = [DefectOut.of(defect, mm_per_px) for defect in audit.missed]
        return cls(slices=audit.slices, of_slices=audit.of_slices, missed=missed)


class CropOut(BaseModel):
    """One square that was looked into; `rank` 1 has the greatest confidence."""

    rank: int
    center: Point
    confidence: float
    box: Box
    reason: Literal["peak", "neighbour"] = Field(
        description="`neighbour`: a defect went on beyond the crops before; ranked after all peaks"
    )
    image: str | None = Field(description="base64, where `crop_images` asks for it")

    @classmethod
    def of(cls, crop: Crop, encoded: bytes | None) -> CropOut:
        """With its picture, an encoded file, or without."""
        return cls(
            rank=crop.rank,
            center=crop.center_xy,
            confidence=crop.confidence,
            box=crop.box,
            reason=crop.reason,
            image=None if encoded is None else base64_of(encoded),
        )


class AnswerOut(References):
    """What every answer about a picture begins and ends with."""

    id: str
    product: str
    version: str
    image: ImageOut
    timings_ms: dict[str, float] = Field(description="`upload` is the client's sending")


class DetectionOut(AnswerOut):
    """Answer of `POST /detect`."""

    verdict: Verdict = Field(description="`ng` where a defect is left after all limits and rules")
    decision: Decision = Field(
        description="the verdict, but `review` where an `ok` hangs on a defect in doubt"
    )
    crops: list[CropOut]
    defects: list[DefectOut]
    tolerated: list[ToleratedOut] = Field(description="seen, and let pass")
    budget_exhausted: bool
    confidence_matrix: str | None
    audit: AuditOut | None = Field(description="where this picture was audited")


class SampleOut(BaseModel):
    """One synthetic picture: base64 PNGs of the input's size, and the truth about it."""

    seed: int
    image: str
    mask: str
    defects: list[RegionOut]


class SynthesisOut(AnswerOut):
    """Answer of `POST /synthesize`."""

    seed: int
    samples: list[SampleOut]
    rejected: int
    rejected_by_reason: dict[str, int]


class ProblemOut(BaseModel):
    """An error (RFC 9457); `code` is a stable word."""

    type: str
    title: str
    status: int
    detail: str
    error: str = Field(description="`detail`, where Open Inference Protocol clients look for it")
    instance: str
    code: str


def scale_of(manifest: Manifest) -> float | None:
    """Millimetres in a pixel, where the manifest knows the camera's scale."""
    return manifest.calibration.mm_per_px if manifest.calibration else None


def measures_of(label: str, region: Region, mm_per_px: float | None) -> dict[str, Any]:
    """The fields of RegionOut."""
    return {
        "label": label,
        "polygon": PolygonOut.of(region.polygon),
        "box": region.box,
        "area_px": region.area_px,
        "area_mm": None if mm_per_px is None else region.area_px * mm_per_px**2,
    }


def findings_of(defect: Defect, mm_per_px: float | None) -> dict[str, Any]:
    """The fields of DefectOut."""
    extent = asdict(defect.extent)
    in_mm = {
        name.replace("_px", "_mm"): None if mm_per_px is None else value * mm_per_px
        for name, value in extent.items()
    }
    return (
        measures_of(defect.label, defect.region, mm_per_px)
        | extent
        | in_mm
        | {
            "score": defect.score,
            "centroid": defect.region.centroid_xy,
            "min_area_rect": MinAreaRectOut.of(defect.region.min_area_rect, mm_per_px),
            "truncated": defect.truncated,
            "crops": list(defect.crops),
        }
    )


def points_of(ring: NDArray[Any]) -> list[Point]:
    """An (N, 2) ring as JSON numbers."""
    return [(float(x), float(y)) for x, y in ring]


def base64_of(data: bytes) -> str:
    """Bytes as text."""
    return b64encode(data).decode("ascii")
