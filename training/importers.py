"""LabelMe, COCO and mask folders -> samples, with the file and field of whatever is malformed."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask
from models.errors import InputError
from models.steps.pictures import PictureLimits, decode_picture
from training.annotations import AnnotationMalformed, label_of, load_json, need
from training.markings import Marking, Sample, read_coco_shape, read_labelme_shapes
from training.proposals import (
    LOOKED_AT,
    Proposal,
    holds_proposals,
    place_proposals,
    read_proposals,
)

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
SPLITS = ("", "train", "val", "test")
"""What a split file may say; empty is drawn, and test pictures are left alone."""
RIM_SHARE = 0.01
"""Most pixels of a mask that may lie between its two levels."""
LIMITS = PictureLimits()


def import_folders(folders: Sequence[Path]) -> tuple[list[Sample], list[Path]]:
    """The samples of folders of any layout, and the pictures that had to be left out of them.

    The crops of a folder that `proposals.propose` wrote are placed on their pictures, which may be
    in another of the folders or in none. Errors: AnnotationMalformed with the file and the field.
    """
    samples: list[Sample] = []
    proposals: list[Proposal] = []
    for folder in folders:
        if folder.is_dir() and holds_proposals(folder):
            proposals += read_proposals(folder)
        else:
            samples += _new_ones(import_folder(folder), samples, folder)
    placed, left_out = place_proposals(samples, proposals)
    if not placed:
        reason = f"is not ticked for every crop of {left_out[0].name}, nor of any other picture"
        raise AnnotationMalformed(folders[0], f"flags.{LOOKED_AT}", reason)
    return placed, left_out


def list_pictures(folder: Path) -> list[Sample]:
    """The pictures of a folder or of its `images/`, unmarked, with their groups."""
    images = _pictures(folder / "images" if (folder / "images").is_dir() else folder)
    if not images:
        raise AnnotationMalformed(folder, "pictures", "there are none")
    return _with_groups([Sample(image, group=image.stem) for image in images], folder)


def import_folder(folder: Path) -> list[Sample]:
    """Read a folder of any supported layout, in the order of the pictures' names.

    COCO where a *.json at the top has `annotations`; LabelMe where `labels/` (or the picture's
    folder) holds a JSON a picture; else masks: `masks/<label>/<stem>.png`, or a PNG of the same
    stem beside each picture, the folder's name being its label; an empty mask marks nothing.
    `split.csv` with columns image, group and split names groups; `index.csv` with image, kind and
    group (and split) does so within each kind; without one each picture is its own group.

    Errors: AnnotationMalformed with the file and the field.
    """
    if not folder.is_dir():
        raise AnnotationMalformed(folder, "folder", "there is none")
    if coco := [f for f in sorted(folder.glob("*.json")) if _is_coco(f)]:
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
    images = _pictures(folder / "images" if (folder / "images").is_dir() else folder)
    files = sorted(labels.glob("*.json"))
    _require_pictures(files, images)
    markings = {file.stem: tuple(read_labelme_shapes(file)) for file in files}
    return [Sample(i, group=i.stem, markings=markings.get(i.stem, ())) for i in images]


def read_coco(file: Path) -> list[Sample]:
    """The pictures and annotations of one COCO file; polygons and uncompressed RLE."""
    content = load_json(file)
    categories = {
        need(c, "id", int, file, "categories"): need(c, "name", str, file, "categories")
        for c in need(content, "categories", list, file, "")
    }
    markings: dict[int, list[Marking]] = {}
    for index, annotation in enumerate(need(content, "annotations", list, file, "")):
        where = f"annotations[{index}]"
        category = need(annotation, "category_id", int, file, where)
        if category not in categories:
            raise AnnotationMalformed(file, f"{where}.category_id", f"{category} is not listed")
        draw = read_coco_shape(annotation.get("segmentation"), file, f"{where}.segmentation")
        image_id = need(annotation, "image_id", int, file, where)
        label = label_of(categories[category], file, "categories.name")
        markings.setdefault(image_id, []).append(Marking(label, draw))
    samples = []
    for index, image in enumerate(need(content, "images", list, file, "")):
        where = f"images[{index}]"
        name = need(image, "file_name", str, file, where)
        places = (file.parent / name, file.parent / "images" / name)
        if (path := next((p for p in places if p.is_file()), None)) is None:
            raise AnnotationMalformed(file, f"{where}.file_name", f"{name} does not exist")
        found = tuple(markings.pop(need(image, "id", int, file, where), ()))
        samples.append(Sample(path, group=path.stem, markings=found))
    if markings:
        raise AnnotationMalformed(file, "annotations.image_id", f"{min(markings)} is not listed")
    return samples


def read_masks(folder: Path) -> list[Sample]:
    """Pictures with mask PNGs: `masks/<label>/<stem>.png`, or `<stem>.png` beside the picture."""
    if not (folder / "masks").is_dir():
        paths = sorted(folder.rglob("*"))
        images = [p for p in paths if p.suffix.lower() in (".jpg", ".jpeg", ".bmp")]
        return [Sample(p, group=p.stem, markings=tuple(_beside(p, folder))) for p in images]
    images, files = _pictures(folder / "images"), sorted((folder / "masks").glob("*/*.png"))
    _require_pictures(files, images)
    markings: dict[str, list[Marking]] = {}
    for file in files:
        markings.setdefault(file.stem, []).extend(_mask_markings(file.parent.name, file))
    return [Sample(i, group=i.stem, markings=tuple(markings.get(i.stem, ()))) for i in images]


def _beside(image: Path, folder: Path) -> Iterator[Marking]:
    parts = image.relative_to(folder).parts[:-1]
    label = next((p for p in parts if p.lower() not in ("imgs", "images")), "defect")
    mask = image.with_suffix(".png")
    yield from _mask_markings(label, mask) if mask.exists() else ()


def _mask_markings(label: str, file: Path) -> Iterator[Marking]:
    """One marking, or none where the mask is empty."""

    def draw(hw: tuple[int, int]) -> Mask:
        if (mask := _read_mask(file)).shape != hw:
            raise AnnotationMalformed(file, "mask", f"is {mask.shape}, its picture {hw}")
        return mask

    if _read_mask(file).any():
        yield Marking(label_of(label, file, "label"), draw)


def _read_mask(file: Path) -> Mask:
    """True above half of white, which is 1 in a mask of 0 and 1.

    A mask whose brightest level is less than half of white is black with noise: empty.
    """
    try:
        picture = decode_picture(file.read_bytes(), LIMITS)
    except InputError as error:
        raise AnnotationMalformed(file, "mask", str(error)) from error
    grey = picture.pixels.max(axis=2) if picture.pixels.ndim == 3 else picture.pixels
    _require_two_levels(grey, file)
    return np.asarray(grey > (0 if grey.max() == 1 else picture.white // 2))


def _require_two_levels(grey: NDArray[Any], file: Path) -> None:
    """Refuse areas between black and the brightest level: classes, which no threshold parts.

    The rims that compression leaves are thin, and few pixels of the whole.
    """
    between = (grey > 0.15 * grey.max()) & (grey < 0.85 * grey.max())
    square = np.ones((3, 3), np.uint8)
    flat = cv2.erode(grey, square) == cv2.dilate(grey, square)
    if between.mean() > RIM_SHARE or (between & flat).any():
        raise AnnotationMalformed(file, "mask", "has levels between black and white: one a label")


def _new_ones(samples: list[Sample], known: list[Sample], folder: Path) -> list[Sample]:
    """The samples, none of which another folder may have given: it could be on both sides."""
    files = {sample.image.resolve() for sample in known}
    for sample in (s for s in samples if s.image.resolve() in files):
        raise AnnotationMalformed(folder, "pictures", f"{sample.image.name} is given twice")
    return samples


def _require_pictures(annotations: list[Path], images: list[Path]) -> None:
    """Refuse an annotation whose picture is missing: it would be lost without a word."""
    stems = {image.stem for image in images}
    for file in (f for f in annotations if f.stem not in stems):
        raise AnnotationMalformed(file, "picture", "there is none of this name")


def _with_groups(samples: list[Sample], folder: Path) -> list[Sample]:
    """Groups and splits from split.csv or index.csv, where there is one."""
    files = (folder / "split.csv", folder / "index.csv")
    if (file := next((f for f in files if f.exists()), None)) is None:
        return samples
    by_name = {row["image"]: row for row in _read_rows(file)}
    named = []
    for sample in samples:
        relative = sample.image.relative_to(folder).as_posix()
        if (row := by_name.get(relative, by_name.get(sample.image.name))) is None:
            raise AnnotationMalformed(file, "image", f"{relative} has no row")
        group = f"{row['kind']}-{row['group']}" if file.stem == "index" else row["group"]
        named.append(Sample(sample.image, group, row.get("split") or "", sample.markings))
    return named


def _read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a split file, each with an image, a group and a split that is known."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    needed = ("image", "group", "kind") if file.stem == "index" else ("image", "group")
    for number, row in enumerate(rows, start=2):
        for column in (c for c in needed if not row.get(c)):
            raise AnnotationMalformed(file, f"line {number}: {column}", "is missing")
        if row.get("split") not in (None, *SPLITS):
            raise AnnotationMalformed(file, f"line {number}: split", f"is none of {SPLITS[1:]}")
    return rows


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise AnnotationMalformed(folder, "folder", "there is none")
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURE_SUFFIXES]


def _is_coco(file: Path) -> bool:
    content = load_json(file)
    return isinstance(content, dict) and "annotations" in content
