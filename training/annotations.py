"""Fields of annotation files, each named with its file where it is malformed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import FlawsmithError


class AnnotationMalformed(FlawsmithError):
    """An annotation file that cannot be read; names the file and the field."""

    def __init__(self, file: Path, field_name: str, reason: str) -> None:
        super().__init__(f"{file}: {field_name}: {reason}")


def load_json(file: Path) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AnnotationMalformed(file, "JSON", str(error)) from error


def need(content: Any, name: str, kind: type, file: Path, where: str) -> Any:
    """A field that must be there and of its kind; `where` is the path to what holds it."""
    path = f"{where}.{name}" if where else name
    if not isinstance(content, dict) or name not in content:
        raise AnnotationMalformed(file, path, "is missing")
    if not isinstance(content[name], kind):
        raise AnnotationMalformed(file, path, f"is not a {kind.__name__}")
    return content[name]


def whole_numbers(values: list[Any], file: Path, where: str) -> list[int]:
    """Values that must be whole numbers from 0 on."""
    if not all(isinstance(value, int) and value >= 0 for value in values):
        raise AnnotationMalformed(file, where, "are not whole numbers from 0 on")
    return values


def finite_points(values: list[Any], file: Path, where: str) -> NDArray[np.float64]:
    """Values that must be finite x, y pairs: (N, 2)."""
    try:
        points = np.array(values, float)
    except (TypeError, ValueError) as error:
        raise AnnotationMalformed(file, where, "are not numbers") from error
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise AnnotationMalformed(file, where, "are not finite x, y pairs")
    return points


def label_of(text: str, file: Path, where: str) -> str:
    """A label as a manifest names it."""
    label = re.sub(r"[\s_]+", "-", text.strip().lower())
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", label):
        raise AnnotationMalformed(file, where, f"{text!r} is no name of letters, digits and dashes")
    return label
