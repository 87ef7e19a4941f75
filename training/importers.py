"""LabelMe, COCO and mask folders -> samples, with the file and field of whatever is malformed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask
from models.errors import FlawsmithError, InputError
from models.steps.pictures import PictureLimits, decode_picture

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
LIMITS = PictureLimits()


class AnnotationMalformed(FlawsmithError):
    """An annotation file that cannot be read; names the file and the field."""

    def __init__(self, file: Path, field_name: str, reason: str) -> None:
        super().__init__(f"{file}: {field_name}: {reason}")


@dataclass(frozen=True)
class Marking:
    """One annotated defect (or all of one label): a label and the way to its mask.

    draw: (height, width) of the picture -> its mask.
    """

    label: str
    draw: Callable[[tuple[int, int]], Mask]


@dataclass(frozen=True)
class Sample:
    """One picture and what is marked on it; `split` is empty where the data names none."""

    image: Path
    group: str
    split: str = ""
    markings: tuple[Marking, ...] = field(default=())


def import_folder(folder: Path) -> list[Sample]:
    """Read a folder of any supported layout, in the order of the pictures' names.

    COCO where a *.json at the top has `annotations`; LabelMe where `labels/` (or the picture's
    folder) holds a JSON a picture; else masks: `masks/<label>/<stem>.png`, or a PNG of the same
    stem beside each picture, the folder's name being its label. `split.csv` or `index.csv` with
    columns image, group and split names groups; without one each picture is its own group.

    Errors: AnnotationMalformed with the file and the field.
    """
    if not folder.is_dir():
        raise AnnotationMalformed(folder, "folder", "there is none")
    coco = [f for f in sorted(folder.glob("*.json")) if _is_coco(f)]
    if coco:
        samples = [s for file in coco for s in read_coco(file)]
    elif any((folder / "labels").glob("*.json")):
        samples = read_labelme(folder, labels=folder / "labels")
    elif any(folder.glob("*.json")):
        samples = read_labelme(folder, labels=folder)
    else:
        samples = read_masks(folder)
    if not samples:
        raise AnnotationMalformed(folder, "pictures", "there are none")
    return _with_groups(samples, folder)


def read_labelme(folder: Path, *, labels: Path) -> list[Sample]:
    """Pictures with a LabelMe JSON of the same stem; a picture without one is normal."""
    samples = []
    for image in _pictures(folder / "images" if (folder / "images").is_dir() else folder):
        file = labels / f"{image.stem}.json"
        markings = tuple(_labelme_markings(file)) if file.exists() else ()
        samples.append(Sample(image, group=image.stem, markings=markings))
    return samples


def read_coco(file: Path) -> list[Sample]:
    """The pictures and annotations of one COCO file; polygons and uncompressed RLE."""
    content = _load_json(file)
    categories = {
        _need(c, "id", int, file, "categories"): _need(c, "name", str, file, "categories")
        for c in _need(content, "categories", list, file, "")
    }
    markings: dict[int, list[Marking]] = {}
    for index, annotation in enumerate(_need(content, "annotations", list, file, "")):
        where = f"annotations[{index}]"
        category = _need(annotation, "category_id", int, file, where)
        if category not in categories:
            raise AnnotationMalformed(file, f"{where}.category_id", f"{category} is not listed")
        draw = _coco_shape(annotation.get("segmentation"), file, f"{where}.segmentation")
        image_id = _need(annotation, "image_id", int, file, where)
        markings.setdefault(image_id, []).append(Marking(_name(categories[category]), draw))
    samples = []
    for index, image in enumerate(_need(content, "images", list, file, "")):
        where = f"images[{index}]"
        name = _need(image, "file_name", str, file, where)
        path = next(
            (p for p in (file.parent / name, file.parent / "images" / name) if p.exists()), None
        )
        if path is None:
            raise AnnotationMalformed(file, f"{where}.file_name", f"{name} does not exist")
        found = tuple(markings.get(_need(image, "id", int, file, where), ()))
        samples.append(Sample(path, group=path.stem, markings=found))
    return samples


def read_masks(folder: Path) -> list[Sample]:
    """Pictures with mask PNGs: `masks/<label>/<stem>.png`, or `<stem>.png` beside the picture."""
    if (folder / "masks").is_dir():
        labels = sorted(d for d in (folder / "masks").iterdir() if d.is_dir())
        return [
            Sample(
                image,
                group=image.stem,
                markings=tuple(
                    _mask_marking(label.name, label / f"{image.stem}.png")
                    for label in labels
                    if (label / f"{image.stem}.png").exists()
                ),
            )
            for image in _pictures(folder / "images")
        ]
    images = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in (".jpg", ".jpeg", ".bmp")]
    return [Sample(p, group=p.stem, markings=tuple(_beside(p, folder))) for p in images]


def _beside(image: Path, folder: Path) -> Iterator[Marking]:
    mask = image.with_suffix(".png")
    if mask.exists():
        parts = image.relative_to(folder).parts[:-1]
        label = next((p for p in parts if p.lower() not in ("imgs", "images")), "defect")
        yield _mask_marking(label.rpartition("_")[2], mask)


def _mask_marking(label: str, file: Path) -> Marking:
    def draw(hw: tuple[int, int]) -> Mask:
        try:
            mask: Mask = decode_picture(file.read_bytes(), LIMITS).as_rgb8().max(axis=2) > 127
        except InputError as error:
            raise AnnotationMalformed(file, "mask", str(error)) from error
        if mask.shape != hw:
            raise AnnotationMalformed(file, "mask", f"is {mask.shape}, its picture {hw}")
        return mask

    return Marking(_name(label), draw)


def _labelme_markings(file: Path) -> Iterator[Marking]:
    for index, shape in enumerate(_need(_load_json(file), "shapes", list, file, "")):
        where = f"shapes[{index}]"
        label = _need(shape, "label", str, file, where)
        points = _points(_need(shape, "points", list, file, where), file, f"{where}.points")
        kind = shape.get("shape_type", "polygon")
        if kind == "rectangle" and len(points) == 2:
            (left, top), (right, bottom) = points
            points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        elif kind != "polygon" or len(points) < 3:
            raise AnnotationMalformed(file, f"{where}.shape_type", f"{kind} encloses no area")
        yield Marking(_name(label), _polygons_drawer([points]))


def _coco_shape(shape: Any, file: Path, where: str) -> Callable[[tuple[int, int]], Mask]:
    if isinstance(shape, list) and shape and all(isinstance(ring, list) for ring in shape):
        if any(len(ring) < 6 or len(ring) % 2 for ring in shape):
            raise AnnotationMalformed(file, where, "a polygon needs three x, y pairs")
        pairs = [[ring[i : i + 2] for i in range(0, len(ring), 2)] for ring in shape]
        return _polygons_drawer([_points(ring, file, where) for ring in pairs])
    if isinstance(shape, dict) and isinstance(shape.get("counts"), list):
        counts, (height, width) = shape["counts"], _need(shape, "size", list, file, where)
        if sum(counts) != height * width:
            raise AnnotationMalformed(file, f"{where}.counts", "do not sum to the picture's size")
        values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        run_mask = values.reshape(width, height).T

        def draw(hw: tuple[int, int]) -> Mask:
            if run_mask.shape != hw:
                raise AnnotationMalformed(file, f"{where}.size", f"is not the picture's {hw}")
            return run_mask

        return draw
    raise AnnotationMalformed(file, where, "is neither polygons nor uncompressed RLE")


def _polygons_drawer(polygons: list[NDArray[np.float64]]) -> Callable[[tuple[int, int]], Mask]:
    """Pixels whose centre (at +0.5) the polygons enclose, to 1/16 px."""

    def draw(hw: tuple[int, int]) -> Mask:
        canvas = np.zeros(hw, np.uint8)
        for polygon in polygons:
            fixed = np.round((polygon - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(canvas, [fixed], 1, shift=4)
        return canvas > 0

    return draw


def _with_groups(samples: list[Sample], folder: Path) -> list[Sample]:
    """Groups and splits from split.csv or index.csv, where there is one."""
    file = next((f for f in (folder / "split.csv", folder / "index.csv") if f.exists()), None)
    if file is None:
        return samples
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for column in ("image", "group"):
        if rows and column not in rows[0]:
            raise AnnotationMalformed(file, column, "the column is missing")
    by_name = {row["image"]: row for row in rows}
    named = []
    for sample in samples:
        relative = sample.image.relative_to(folder).as_posix()
        row = by_name.get(relative, by_name.get(sample.image.name))
        if row is None:
            raise AnnotationMalformed(file, "image", f"{relative} has no row")
        group = f"{row['kind']}-{row['group']}" if file.stem == "index" else row["group"]
        named.append(Sample(sample.image, group, row.get("split", ""), sample.markings))
    return named


def _pictures(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURE_SUFFIXES]


def _is_coco(file: Path) -> bool:
    content = _load_json(file)
    return isinstance(content, dict) and "annotations" in content


def _load_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (ValueError, OSError) as error:
        raise AnnotationMalformed(file, "JSON", str(error)) from error


def _need(content: Any, name: str, kind: type, file: Path, where: str) -> Any:
    path = f"{where}.{name}" if where else name
    if not isinstance(content, dict) or name not in content:
        raise AnnotationMalformed(file, path, "is missing")
    if not isinstance(content[name], kind):
        raise AnnotationMalformed(file, path, f"is not a {kind.__name__}")
    return content[name]


def _points(values: list[Any], file: Path, where: str) -> NDArray[np.float64]:
    try:
        points = np.array(values, float)
    except (TypeError, ValueError) as error:
        raise AnnotationMalformed(file, where, "are not numbers") from error
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise AnnotationMalformed(file, where, "are not finite x, y pairs")
    return points


def _name(label: str) -> str:
    return label.strip().lower().replace(" ", "-").replace("_", "-")
