"""Schema of manifest.json: what a bundle's numbers mean.

A number that belongs to the graphs lives here and nowhere else. Every value is frozen; a request
that asks for another one makes a new value, it never edits the bundle.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.frozen import Frozen, Name, Score
from models.inspection import Rule, Zones, require_rules

SCHEMA_VERSION = 1
"""Raised whenever an older reader would misunderstand a newer manifest."""

GRAPH_FILES = ("mask_generator.onnx", "defect_generator.onnx", "locator.onnx", "segmenter.onnx")
"""The four graphs of every bundle."""

Precision = Literal["fp32", "int8"]
Version = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){0,2}$")]
Fingerprint = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{683}=$")]
"""512 bytes as base64: see `models/steps/copies.py`."""
Contexts = Annotated[str, Field(pattern=r"^([A-Za-z0-9+/]{144})*$")]
"""Rows of 108 bytes as base64, 144 letters each: see `models/steps/contexts.py`."""


class GraphSpec(Frozen):
    """One graph file: what goes in, what comes out, and the digest that proves it."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    precision: Precision = Field(default="fp32", description="of its weights and activations")
    inputs: dict[str, str] = Field(description="name -> layout, type and meaning")
    outputs: dict[str, str] = Field(description="name -> layout, type and meaning")


class LocatorSpec(GraphSpec):
    """Any picture in; out of a heatmap what every stride × stride cell holds, of deeppose points.

    A heatmap's graph that also gives `peaks` is asked for them alone where they are enough.
    """

    kind: Literal["heatmap", "deeppose"] = "heatmap"
    stride_px: int = Field(gt=0, description="cell side of the output, px of the input picture")
    multiple_px: int = Field(gt=0, description="input height and width are multiples of it")
    look_hw: tuple[int, int] | None = Field(
        default=None, description="height and width at which deeppose sees the whole picture"
    )

    @model_validator(mode="after")
    def deeppose_has_a_look(self) -> LocatorSpec:
        """Refuse a regressing locator without the size of its look."""
        if self.kind == "deeppose" and self.look_hw is None:
            raise ValueError("a deeppose locator needs look_hw")
        return self


class SegmenterSpec(GraphSpec):
    """Crops of a fixed side in, one logit per pixel for the background and each label out."""

    side_px: int = Field(gt=0)


class MaskGeneratorSpec(GraphSpec):
    """A normal crop, its object mask, a label and Gaussian noise in, a soft mask out."""

    side_px: int = Field(gt=0)
    noise_size: int = Field(gt=0)
    spatial_noise_chw: tuple[int, int, int]


class DefectGeneratorSpec(GraphSpec):
    """A normal crop, a mask, a label and Gaussian noise in, a foreground and its alpha out."""

    side_px: int = Field(gt=0)
    noise_size: int = Field(gt=0)


class Graphs(Frozen):
    """The four graphs."""

    mask_generator: MaskGeneratorSpec
    defect_generator: DefectGeneratorSpec
    locator: LocatorSpec
    segmenter: SegmenterSpec


class DetectionParams(Frozen):
    """How story 1 is told unless a request says otherwise."""

    n: int = Field(ge=1, le=64, description="most crops to look into")
    crop_size_px: int = Field(gt=0, description="side of the square crops")
    min_confidence: Score = Field(description="a peak below it gets no crop; calibrated")
    min_score: Score = Field(description="a region below it is not a defect; calibrated")
    review_score: Score | None = Field(
        default=None,
        description="where every region is below it, the part is surely good; up to min_score "
        "somebody looks again; calibrated",
    )
    min_area_px: float = Field(ge=0.0, description="a smaller region is not a defect")
    mask_threshold: Score = Field(description="defect probability from which a pixel is defect")
    largest_defect_px: float = Field(gt=0.0, description="longest side of the largest defect")
    peak_rule: Literal["coverage", "literal"] = "coverage"
    extra_crops: int = Field(
        default=4, ge=0, le=64, description="most crops beyond n, where a defect goes on unseen"
    )
    merge_gap_px: int = Field(
        default=0, ge=0, le=256, description="parts of a label this near each other are one defect"
    )
    zones: Zones = Zones()
    rules: tuple[Rule, ...] = Field(default=(), max_length=64, description="the first that fits")

    @property
    def doubt_score(self) -> float:
        """From which score on a region is looked at: `review_score`, never above `min_score`."""
        if self.review_score is None:
            return self.min_score
        return min(self.review_score, self.min_score)

    @property
    def reach_px(self) -> float:
        """How far from a crop's centre the largest defect's centre may lie, and be whole."""
        return max(0.0, (self.crop_size_px - self.largest_defect_px) / 2)


class LabelShape(Frozen):
    """What the real defects of one label look like, for drawing sites and judging results."""

    sides_px: tuple[float, ...] = Field(min_length=2, description="quantiles of the longest side")
    min_area_px: float = Field(gt=0.0)
    min_contrast: float = Field(gt=0.0, description="least visible change, grey levels of 255")
    fingerprints: tuple[Fingerprint, ...] = Field(
        default=(), max_length=256, description="training defects, of which no copy is made"
    )
    contexts: Contexts = Field(default="", description="what surrounds training defects")
    copy_similarity: Score = Field(
        default=1.0, description="likeness to a training defect, above which one is its copy"
    )


class ObjectRule(Frozen):
    """How the object is found in a normal picture by threshold segmentation."""

    threshold: Literal["otsu", "none"]
    polarity: Literal["bright", "dark"] = "bright"
    full_share: Score = Field(default=0.98, description="covering more means: no background")
    least_gap: float = Field(default=48.0, description="grey levels that make a background")
    margin_hw: tuple[Score, Score] = Field(
        default=(0.0, 0.0), description="shares of height and width at both ends, never object"
    )


class SynthesisParams(Frozen):
    """How story 2 is told unless a request says otherwise."""

    object_rule: ObjectRule
    crop_scale: tuple[float, float] = Field(description="crop side ÷ defect side, least and most")
    mask_threshold: Score = Field(default=0.5, description="soft mask from which a pixel is defect")
    feather_px: float = Field(gt=0.0, description="width of the blend inside the mask, crop pixels")
    max_attempts: int = Field(gt=0, description="draws for one defect before giving up")
    site_candidates: int = Field(
        default=1, ge=1, description="places of which the one most like real ones is taken"
    )
    shapes: dict[str, LabelShape]


class Limits(Frozen):
    """What the graphs can take."""

    min_side_px: int = Field(gt=0, description="shortest side of a picture")
    max_pixels: int = Field(gt=0)


class Calibration(Frozen):
    """The camera's scale, where it is known."""

    mm_per_px: float = Field(gt=0.0)


class DataSource(Frozen):
    """One data set that the graphs were trained on."""

    name: str
    licence: str
    citation: str
    pictures: dict[str, int] = Field(description="split -> number of pictures")


class Training(Frozen):
    """Where the graphs come from."""

    data: tuple[DataSource, ...]
    commit: str = Field(description="the training code's commit at export; + where it was changed")
    recipe: str
    seeds: dict[str, int]
    steps: dict[str, int]


class Manifest(Frozen):
    """Everything a reader of a bundle must know."""

    schema_version: Literal[1] = 1
    product: Name
    version: Version
    created: datetime
    labels: tuple[Name, ...] = Field(min_length=1)
    graphs: Graphs
    detection: DetectionParams
    synthesis: SynthesisParams
    limits: Limits
    calibration: Calibration | None = None
    training: Training
    figures: dict[str, float] = Field(description="measured on validation pictures; name -> value")

    @model_validator(mode="after")
    def every_label_has_a_shape(self) -> Manifest:
        """Refuse a manifest whose synthesis cannot draw one of its labels."""
        missing = set(self.labels) - set(self.synthesis.shapes)
        if missing:
            raise ValueError(f"synthesis.shapes lacks {sorted(missing)}")
        return self

    @model_validator(mode="after")
    def detection_can_be_judged(self) -> Manifest:
        """Refuse limits in the wrong order, and rules that no defect could be held to."""
        params = self.detection
        if params.review_score is not None and params.review_score > params.min_score:
            raise ValueError("detection.review_score is above min_score")
        mm_per_px = self.calibration.mm_per_px if self.calibration else None
        require_rules(params.rules, self.labels, mm_per_px)
        return self
