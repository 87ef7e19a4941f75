"""What a client asks and is answered, typed; what a newer service adds stays in `raw`."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, TypeVar

Point = tuple[float, float]
Box = tuple[int, int, int, int]
Made = TypeVar("Made")


class Asked(TypedDict, total=False):
    """What both routes can be asked; None leaves it to the service."""

    product: str | None
    version: str | None
    part_id: str | None
    job_id: str | None
    recipe_id: str | None
    meas_id: str | None


class DetectionAsked(Asked, total=False):
    """What `detect` can be asked, named as the parameters of `POST /detect`."""

    n: int | None
    crop_size: int | None
    min_confidence: float | None
    min_score: float | None
    review_score: float | None
    extra_crops: int | None
    merge_gap: int | None
    zones: dict[str, Any] | None
    rules: list[dict[str, Any]] | None
    audit: bool | None
    crop_images: Literal["none", "jpeg", "png"] | None
    confidence_matrix: Literal["none", "png"] | None
    mm_per_px: float | None


class SynthesisAsked(Asked, total=False):
    """What `synthesize` can be asked, named as the parameters of `POST /synthesize`."""

    count: int | None
    defects: int | None
    label: str | None
    labels: str | None
    seed: int | None
    region: str | None
    size_px: str | None
    contrast: str | None


@dataclass(frozen=True)
class Polygon:
    """Closed rings along pixel edges, (x, y) in px; the first point is not repeated."""

    exterior: tuple[Point, ...]
    holes: tuple[tuple[Point, ...], ...]


@dataclass(frozen=True)
class MinAreaRect:
    """The smallest rectangle around a region, turned by `angle_deg`."""

    center: Point
    size: Point
    angle_deg: float
    size_mm: Point | None = None


@dataclass(frozen=True)
class Region:
    """A connected region: box is x, y, width, height; millimetres where the scale is known."""

    label: str
    polygon: Polygon
    box: Box
    area_px: float
    area_mm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Defect(Region):
    """One defect. `reason` says why a tolerated one does not make the picture `ng`."""

    score: float
    centroid: Point
    min_area_rect: MinAreaRect
    length_px: float
    width_px: float
    mean_width_px: float
    truncated: bool
    crops: tuple[int, ...]
    length_mm: float | None = None
    width_mm: float | None = None
    mean_width_mm: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Crop:
    """One square that was looked into; its picture is an encoded file, where it was asked for."""

    rank: int
    center: Point
    confidence: float
    box: Box
    reason: str
    image: bytes | None = None


@dataclass(frozen=True)
class Audit:
    """What slicing the whole picture found beyond the crops."""

    slices: int
    of_slices: int
    missed: tuple[Defect, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What every answer about a picture tells; `raw` is the whole of it as it came."""

    id: str
    product: str
    version: str
    width: int
    height: int
    timings_ms: Mapping[str, float]
    raw: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Detection(Answer):
    """Answer of `detect`. `confidence_matrix` is a 16-bit PNG file, where it was asked for."""

    verdict: Literal["ok", "ng"]
    decision: Literal["ok", "review", "ng"]
    crops: tuple[Crop, ...]
    defects: tuple[Defect, ...]
    tolerated: tuple[Defect, ...]
    budget_exhausted: bool
    confidence_matrix: bytes | None
    audit: Audit | None


@dataclass(frozen=True)
class Sample:
    """One synthetic picture and its mask, two PNG files, and the truth about it."""

    seed: int
    image: bytes
    mask: bytes
    defects: tuple[Region, ...]


@dataclass(frozen=True, kw_only=True)
class Synthesis(Answer):
    """Answer of `synthesize`."""

    seed: int
    samples: tuple[Sample, ...]
    rejected: int
    rejected_by_reason: Mapping[str, int]


def read_detection(data: Mapping[str, Any]) -> Detection:
    """From JSON. Errors: KeyError, TypeError or ValueError where it is no such answer."""
    audit = data["audit"]
    read = {
        "crops": tuple(map(_crop, data["crops"])),
        "defects": tuple(map(_defect, data["defects"])),
        "tolerated": tuple(map(_defect, data["tolerated"])),
        "confidence_matrix": _file(data["confidence_matrix"]),
        "audit": audit and _make(Audit, audit, missed=tuple(map(_defect, audit["missed"]))),
    }
    return _make(Detection, data, **_size(data), **read)


def read_synthesis(data: Mapping[str, Any]) -> Synthesis:
    """From JSON. Errors: KeyError, TypeError or ValueError where it is no such answer."""
    samples = tuple(
        Sample(
            seed=one["seed"],
            image=b64decode(one["image"]),
            mask=b64decode(one["mask"]),
            defects=tuple(_make(Region, defect, **_shape(defect)) for defect in one["defects"]),
        )
        for one in data["samples"]
    )
    return _make(Synthesis, data, **_size(data), samples=samples)


def _make(kind: type[Made], data: Mapping[str, Any], **read: object) -> Made:
    """Its fields from the data, but for those that were read already."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**({name: data[name] for name in names & data.keys()} | read))


def _size(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"width": data["image"]["width"], "height": data["image"]["height"], "raw": data}


def _crop(data: Mapping[str, Any]) -> Crop:
    places = {name: tuple(data[name]) for name in ("center", "box")}
    return _make(Crop, data, image=_file(data["image"]), **places)


def _defect(data: Mapping[str, Any]) -> Defect:
    rect = data["min_area_rect"]
    points = {"center": tuple(rect["center"]), "size": tuple(rect["size"])}
    size_mm = rect.get("size_mm")
    return _make(
        Defect,
        data,
        **_shape(data),
        centroid=tuple(data["centroid"]),
        crops=tuple(data["crops"]),
        min_area_rect=_make(MinAreaRect, rect, **points, size_mm=size_mm and tuple(size_mm)),
    )


def _shape(data: Mapping[str, Any]) -> dict[str, Any]:
    rings = data["polygon"]
    polygon = Polygon(_ring(rings["exterior"]), tuple(map(_ring, rings["holes"])))
    return {"polygon": polygon, "box": tuple(data["box"])}


def _ring(points: list[list[float]]) -> tuple[Point, ...]:
    return tuple((x, y) for x, y in points)


def _file(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
