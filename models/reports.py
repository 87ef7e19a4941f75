"""What the stories found as plain JSON values and as pictures, for files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from models.arrays import RgbImage
from models.audit import Audit
from models.detection import Detection
from models.findings import Defect
from models.steps.outlines import Region
from models.surroundings import Crop
from models.synthesis import Synthetic

RED, BLUE, YELLOW = (235, 40, 40), (60, 130, 255), (240, 200, 40)


def draw_overlay(image: RgbImage, detection: Detection) -> RgbImage:
    """The picture with crops in blue, defects in red and tolerated ones in yellow.

    Lines are as wide as the picture's size asks for.
    """
    drawn = np.ascontiguousarray(image.copy())
    width_px = max(1, round(max(image.shape) / 1000))
    for crop in detection.crops:
        x, y, width, height = crop.box
        cv2.rectangle(drawn, (x, y), (x + width, y + height), BLUE, width_px)
    coloured = [(one.defect, YELLOW) for one in detection.tolerated]
    coloured += [(defect, RED) for defect in detection.defects]
    for defect, color in coloured:
        polygon = defect.region.polygon
        rings = [
            np.round(ring - 0.5).astype(np.int32) for ring in (polygon.exterior, *polygon.holes)
        ]
        cv2.polylines(drawn, rings, isClosed=True, color=color, thickness=width_px)
    return drawn


def describe_size(hw: tuple[int, int]) -> dict[str, int]:
    """A picture's size, px."""
    return {"width": hw[1], "height": hw[0]}


def describe_detection(detection: Detection, mm_per_px: float | None) -> dict[str, Any]:
    """The fields of the answer to `POST /detect`, by the same names; millimetres with a scale."""
    return {
        "verdict": detection.verdict,
        "decision": detection.decision,
        "crops": [_describe_crop(crop) for crop in detection.crops],
        "defects": [_describe_defect(defect, mm_per_px) for defect in detection.defects],
        "tolerated": [
            _describe_defect(one.defect, mm_per_px) | {"reason": one.reason}
            for one in detection.tolerated
        ],
        "budget_exhausted": detection.budget_exhausted,
        "timings_ms": detection.timings_ms,
    }


def describe_audit(audited: Audit, mm_per_px: float | None) -> dict[str, Any]:
    """What only the audit found."""
    missed = [_describe_defect(defect, mm_per_px) for defect in audited.missed]
    told = {"slices": audited.slices, "of_slices": audited.of_slices, "missed": missed}
    return {**told, "took_ms": audited.took_ms}


def _describe_crop(crop: Crop) -> dict[str, Any]:
    return {
        "rank": crop.rank,
        "center": crop.center_xy,
        "confidence": crop.confidence,
        "box": crop.box,
        "reason": crop.reason,
    }


def _describe_defect(defect: Defect, mm_per_px: float | None) -> dict[str, Any]:
    return {
        "label": defect.label,
        "score": defect.score,
        **_describe_region(defect.region),
        **_measure(defect, mm_per_px),
        "truncated": defect.truncated,
        "crops": defect.crops,
    }


def _measure(defect: Defect, mm_per_px: float | None) -> dict[str, float]:
    measured = asdict(defect.extent)
    if mm_per_px is None:
        return measured
    in_mm = {name.replace("_px", "_mm"): px * mm_per_px for name, px in measured.items()}
    return {**measured, **in_mm, "area_mm": defect.region.area_px * mm_per_px**2}


def _describe_region(region: Region) -> dict[str, Any]:
    polygon = region.polygon
    return {
        "polygon": {
            "exterior": polygon.exterior.tolist(),
            "holes": [hole.tolist() for hole in polygon.holes],
        },
        "box": region.box,
        "area_px": region.area_px,
        "centroid": region.centroid_xy,
        "min_area_rect": {
            "center": region.min_area_rect.center_xy,
            "size": region.min_area_rect.size_px,
            "angle_deg": region.min_area_rect.angle_deg,
        },
    }


def describe_sample(sample: Synthetic) -> dict[str, Any]:
    """Its seed, its defects and what was drawn again."""
    return {
        "seed": sample.seed,
        "defects": [{"label": d.label, **_describe_region(d.region)} for d in sample.defects],
        "rejected": dict(sample.rejected),
    }
