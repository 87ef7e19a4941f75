"""Crops of the locator for a person to outline defects in, and the way back onto their pictures.

Source: the second annotation step of the patent that `models/detection.py` names: the squares
around the keypoint model's peaks are annotated with a segmentation tool.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.arrays import Mask, RgbImage
from models.bundle import digest_of
from models.detection import Detection, Detector, detect
from models.errors import InputError, ParameterInvalid
from models.steps.crops import Window, cut_crop
from models.steps.outlines import Polygon, find_regions, place_region
from models.steps.pictures import PictureLimits, decode_picture, encode_png
from models.surroundings import Crop
from training.annotations import AnnotationMalformed, load_json, need, whole_numbers
from training.markings import Marking, Sample, read_labelme_shapes

LIMITS = PictureLimits()
LOOKED_AT = "looked_at"
"""The flag of a crop that a person has looked at, a check box in LabelMe."""


@dataclass(frozen=True)
class Proposal:
    """A crop as it came back: where it is from, and what is marked on it in its own pixels.

    sample: its picture with group and split, unmarked.
    """

    sample: Sample
    window: Window
    is_looked_at: bool
    markings: tuple[Marking, ...]


def propose(
    samples: Sequence[Sample], detector: Detector, folder: Path, *, has_outlines: bool
) -> int:
    """Write the crops of each picture as the service cuts them, with LabelMe files; how many.

    `<stem>-<rank>.png` and `.json`. has_outlines: what the segmenter found is drawn already, to be
    corrected. Errors: ParameterInvalid where the folder holds something, which may be somebody's
    work, or two pictures have one stem; InputError where a picture is broken, too small or large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ParameterInvalid("to", f"{folder} holds something already")
    if len({sample.image.stem for sample in samples}) < len(samples):
        raise ParameterInvalid("from", "two pictures have the same name but for its ending")
    written = 0
    for sample in samples:
        picture = decode_picture(sample.image.read_bytes(), LIMITS)
        detection, image = detect(picture, detector), picture.as_rgb8()
        origin = _describe_origin(sample, picture.hw, folder)
        for crop in detection.crops:
            shapes = _outlines_in(crop, detection, picture.hw) if has_outlines else []
            _write_crop(
                folder / f"{sample.image.stem}-{crop.rank}.png", image, crop, origin, shapes
            )
            written += 1
    return written


def holds_proposals(folder: Path) -> bool:
    """Whether a folder was written by `propose`: its JSON files say where their crops are from."""
    contents = (load_json(file) for file in sorted(folder.glob("*.json")))
    return any(isinstance(content, dict) and "origin" in content for content in contents)


def read_proposals(folder: Path) -> list[Proposal]:
    """The crops of a folder with what was drawn on them, each proved to be of its picture.

    Errors: AnnotationMalformed with the file and the field.
    """
    return [_read_proposal(file) for file in sorted(folder.glob("*.json"))]


def place_proposals(
    samples: Sequence[Sample], proposals: Iterable[Proposal]
) -> tuple[list[Sample], list[Path]]:
    """Samples of whole pictures, crops placed on them, and the pictures that had to be left out.

    In a crop that was looked at, what is drawn there is the truth; elsewhere a picture's own
    annotation. A picture with crops and without an annotation of its own is taken where all of
    them were looked at, else it is left out: what nobody saw is not normal.
    """
    of_picture: dict[Path, list[Proposal]] = {}
    for proposal in proposals:
        of_picture.setdefault(proposal.sample.image.resolve(), []).append(proposal)
    known = {sample.image.resolve() for sample in samples}
    others = [crops[0].sample for image, crops in of_picture.items() if image not in known]
    placed, left_out = [], []
    for sample in (*samples, *others):
        crops = of_picture.get(sample.image.resolve(), [])
        if sample.markings or all(crop.is_looked_at for crop in crops):
            placed.append(_place(sample, crops))
        else:
            left_out.append(sample.image)
    return placed, left_out


def _describe_origin(sample: Sample, hw: tuple[int, int], folder: Path) -> dict[str, Any]:
    return {
        "picture": Path(os.path.relpath(sample.image.resolve(), folder.resolve())).as_posix(),
        "sha256": digest_of(sample.image),
        "size": [hw[1], hw[0]],
        "group": sample.group,
        "split": sample.split,
    }


def _outlines_in(crop: Crop, detection: Detection, hw: tuple[int, int]) -> list[dict[str, Any]]:
    """LabelMe shapes of what of the defects a crop shows, in its own pixels."""
    x, y, side_px, _ = crop.box
    inside = (min(side_px, hw[0] - y), min(side_px, hw[1] - x))
    return [
        {
            "label": defect.label,
            "points": _one_ring(region.polygon),
            "group_id": None,
            "shape_type": "polygon",
            "flags": {},
        }
        for defect in detection.defects
        for region in find_regions(place_region(defect.region, (x, y), inside))
    ]


def _one_ring(polygon: Polygon) -> list[list[float]]:
    """A polygon as a single ring, which LabelMe asks for: a cut leads to each hole and back.

    The way there and the way back lie on each other, so the same pixels are enclosed.
    """
    start = polygon.exterior[0]
    rings = [polygon.exterior]
    for hole in polygon.holes:
        rings += [start[None], hole, hole[:1]]
    return [[float(x), float(y)] for x, y in np.concatenate(rings)]


def _write_crop(
    file: Path,
    image: RgbImage,
    crop: Crop,
    origin: dict[str, Any],
    shapes: list[dict[str, Any]],
) -> None:
    """The picture of a crop, and its LabelMe file: a field that LabelMe does not know it keeps.

    Flags would not do for the origin: LabelMe saves each as true or false.
    """
    x, y, side_px, _ = crop.box
    file.write_bytes(encode_png(cut_crop(image, Window(x, y, side_px))))
    about = {
        "version": "5.5.0",
        "flags": {LOOKED_AT: False},
        "shapes": shapes,
        "imagePath": file.name,
        "imageData": None,
        "imageHeight": side_px,
        "imageWidth": side_px,
        "origin": {
            **origin,
            "box": list(crop.box),
            "rank": crop.rank,
            "confidence": round(crop.confidence, 4),
            "outlines": _drawn(shapes),
        },
    }
    file.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _drawn(shapes: Any) -> list[Any]:
    """What is drawn on a crop, whatever else a tool has written beside it."""
    return [[s.get("label"), s.get("points")] if isinstance(s, dict) else s for s in shapes]


def _read_proposal(file: Path) -> Proposal:
    content = load_json(file)
    origin = need(content, "origin", dict, file, "")
    box = whole_numbers(need(origin, "box", list, file, "origin"), file, "origin.box")
    if len(box) != 4 or box[2] != box[3]:
        raise AnnotationMalformed(file, "origin.box", "is no x, y and a square's sides")
    for field in ("imageWidth", "imageHeight"):
        if need(content, field, int, file, "") != box[2]:
            raise AnnotationMalformed(file, field, f"is not {box[2]}, the side of the crop")
    picture = file.parent / need(origin, "picture", str, file, "origin")
    _require_same(picture, origin, file)
    group = need(origin, "group", str, file, "origin")
    split = need(origin, "split", str, file, "origin")
    is_changed = _drawn(need(content, "shapes", list, file, "")) != origin.get("outlines", [])
    return Proposal(
        Sample(picture, group, split),
        Window(box[0], box[1], box[2]),
        is_changed or (content.get("flags") or {}).get(LOOKED_AT) is True,
        tuple(read_labelme_shapes(file)),
    )


def _require_same(picture: Path, origin: dict[str, Any], file: Path) -> None:
    """Refuse another picture than the one a crop was cut from: its outlines would lie anywhere."""
    if not picture.is_file():
        raise AnnotationMalformed(file, "origin.picture", f"{picture} does not exist")
    if digest_of(picture) == need(origin, "sha256", str, file, "origin"):
        return
    try:
        height, width = decode_picture(picture.read_bytes(), LIMITS).hw
    except InputError as error:
        raise AnnotationMalformed(picture, "picture", str(error)) from error
    if [width, height] != (size := need(origin, "size", list, file, "origin")):
        reason = f"{picture} is {width} x {height}, and was {' x '.join(map(str, size))}"
        raise AnnotationMalformed(file, "origin.size", reason)
    raise AnnotationMalformed(file, "origin.sha256", f"{picture} is not what the crop was cut from")


def _place(sample: Sample, crops: Sequence[Proposal]) -> Sample:
    """A sample with what crops that were looked at show, in place of what it had there."""
    seen = [crop for crop in crops if crop.is_looked_at]
    if not seen:
        return sample
    hw = decode_picture(sample.image.read_bytes(), LIMITS).hw
    around = [_outside(marking, [crop.window for crop in seen]) for marking in sample.markings]
    moved = [_inside(marking, crop.window) for crop in seen for marking in crop.markings]
    return replace(sample, markings=tuple(m for m in (*around, *moved) if m.draw(hw).any()))


def _outside(marking: Marking, windows: Sequence[Window]) -> Marking:
    def draw(hw: tuple[int, int]) -> Mask:
        mask = np.array(marking.draw(hw))
        for window in windows:
            mask[window.slices_in(hw)] = False
        return mask

    return replace(marking, draw=draw)


def _inside(marking: Marking, window: Window) -> Marking:
    def draw(hw: tuple[int, int]) -> Mask:
        canvas = np.zeros(hw, bool)
        there = canvas[window.slices_in(hw)]
        there[...] = marking.draw((window.side_px, window.side_px))[: len(there), : there.shape[1]]
        return canvas

    return replace(marking, draw=draw)
