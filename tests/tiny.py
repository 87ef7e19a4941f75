"""A legal bundle of real ONNX graphs in milliseconds, no torch.

The graphs answer with what they see, so that a test can foretell every pixel: the locator and the
segmenter with the red channel, the mask generator with a disc whose size the noise chooses, the
defect generator with black.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.bundle import digest_of, seal_bundle
from models.manifest import (
    DataSource,
    DefectGeneratorSpec,
    DetectionParams,
    Graphs,
    LabelShape,
    Limits,
    LocatorSpec,
    Manifest,
    MaskGeneratorSpec,
    ObjectRule,
    SegmenterSpec,
    SynthesisParams,
    Training,
)
from models.steps.contexts import write_contexts
from models.steps.copies import write_fingerprints

CROP_PX = 32
SIDE_PX = 32
STRIDE_PX = 8
NOISE = 4
SPATIAL_NOISE_CHW = (1, 2, 2)
LOOK_HW = (64, 96)
LocatorKind = Literal["field", "peaks", "points"]
SegmenterKind = Literal["open", "one", "brittle"]
U8, F32, I64 = TensorProto.UINT8, TensorProto.FLOAT, TensorProto.INT64


def write_tiny_bundle(
    root: Path,
    *,
    product: str = "tiny",
    version: str = "1",
    locator: LocatorKind = "field",
    segmenter: SegmenterKind = "open",
) -> Path:
    """Seal a tiny bundle under root/<product>/<version> and return its folder.

    locator: `field` gives nothing else, as the first bundles'; `peaks` finds them too; `points` is
    a deeppose with a slot for every 8 × 8 pixels of its look.
    segmenter: `one` takes one crop at a time; `brittle` raises where a crop has a pixel whose blue
    is 255.
    """
    made = root / ".graphs"
    made.mkdir(parents=True, exist_ok=True)
    models = {
        "locator.onnx": LOCATORS[locator](),
        "segmenter.onnx": _segmenter(segmenter),
        "mask_generator.onnx": _mask_generator(),
        "defect_generator.onnx": _defect_generator(),
    }
    files = {name: made / name for name in models}
    for name, model in models.items():
        onnx.checker.check_model(model)
        onnx.save(model, str(files[name]))
    manifest = tiny_manifest(files, product=product, version=version)
    spec = manifest.graphs.locator.model_copy(update=SPECS[locator])
    graphs = manifest.graphs.model_copy(update={"locator": spec})
    return seal_bundle(files, manifest.model_copy(update={"graphs": graphs}), root)


def break_graph(folder: Path, file: str = "segmenter.onnx") -> None:
    """Reseal a bundle with a graph that loads, and fails whenever it runs."""
    graph = onnx.load(folder / file)
    graph.graph.initializer.append(numpy_helper.from_array(np.array([7, 7, 7], np.int64), "no"))
    (out,) = graph.graph.output
    graph.graph.node[-1].output[0] = "whole"
    graph.graph.node.append(helper.make_node("Reshape", ["whole", "no"], ["broken"]))
    graph.graph.node.append(helper.make_node("Reshape", ["broken", "no"], [out.name]))
    onnx.save(graph, folder / file)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"][file.removesuffix(".onnx")]["sha256"] = digest_of(folder / file)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def tiny_manifest(files: dict[str, Path], *, product: str, version: str) -> Manifest:
    """The manifest of the tiny graphs: two labels, of which the segmenter says the first.

    The second knows a training defect of mere noise, which nothing is like, and two surroundings.
    """
    digests = {name: digest_of(path) for name, path in files.items()}
    shape = LabelShape(sides_px=(8.0, 12.0, 16.0), min_area_px=4.0, min_contrast=2.0)
    noise = np.random.default_rng(0).integers(-127, 127, (1, 512), np.int8)
    known = {
        "fingerprints": write_fingerprints(noise),
        "copy_similarity": 0.95,
        "contexts": write_contexts(np.full((2, 108), 127, np.uint8)),
    }
    return Manifest(
        product=product,
        version=version,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        labels=("pit", "scratch"),
        graphs=Graphs(
            locator=LocatorSpec(
                sha256=digests["locator.onnx"],
                inputs={"image": "(1, H, W, 3) uint8"},
                outputs={"field": "(1, 3, H/8, W/8) float32"},
                stride_px=STRIDE_PX,
                multiple_px=STRIDE_PX,
            ),
            segmenter=SegmenterSpec(
                sha256=digests["segmenter.onnx"],
                inputs={"image": "(B, 32, 32, 3) uint8"},
                outputs={"logits": "(B, 3, 32, 32) float32"},
                side_px=CROP_PX,
            ),
            mask_generator=MaskGeneratorSpec(
                sha256=digests["mask_generator.onnx"],
                inputs=dict.fromkeys(
                    ("image", "object", "label", "scale", "noise", "spatial_noise"), "see above"
                ),
                outputs={"mask": "(B, 1, 32, 32) float32"},
                side_px=SIDE_PX,
                noise_size=NOISE,
                spatial_noise_chw=SPATIAL_NOISE_CHW,
            ),
            defect_generator=DefectGeneratorSpec(
                sha256=digests["defect_generator.onnx"],
                inputs=dict.fromkeys(("image", "mask", "label", "scale", "noise"), "see above"),
                outputs=dict.fromkeys(("foreground", "alpha"), "float32 in 0..1"),
                side_px=SIDE_PX,
                noise_size=NOISE,
            ),
        ),
        detection=DetectionParams(
            n=5,
            crop_size_px=CROP_PX,
            min_confidence=0.5,
            min_score=0.5,
            min_area_px=1.0,
            mask_threshold=0.5,
            largest_defect_px=16.0,
        ),
        synthesis=SynthesisParams(
            object_rule=ObjectRule(threshold="otsu"),
            crop_scale=(1.4, 2.6),
            feather_px=2.0,
            max_attempts=20,
            shapes={"pit": shape, "scratch": shape.model_copy(update=known)},
        ),
        limits=Limits(min_side_px=16, max_pixels=20_000_000),
        training=Training(
            data=(
                DataSource(
                    name="arithmetic", licence="CC0-1.0", citation="none", pictures={"train": 0}
                ),
            ),
            commit="0000000",
            recipe="tiny",
            seeds={"all": 0},
            steps={"all": 0},
        ),
        figures={},
    )


def _field_locator() -> onnx.ModelProto:
    """Logit: the brightest red of each cell, -8 for 0 and +8 for 255; offsets 0."""
    image = helper.make_tensor_value_info("image", U8, [1, "height", "width", 3])
    return _model(_field_nodes(), [image], [_field_output()], _red_constants())


def _peaks_locator() -> onnx.ModelProto:
    """The same field, and its strongest cells: local maxima first, then others."""
    nodes = [
        *_field_nodes(),
        helper.make_node("MaxPool", ["logit"], ["ring"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Equal", ["logit", "ring"], ["equals"]),
        helper.make_node("Cast", ["equals"], ["is_peak"], to=F32),
        helper.make_node("Mul", ["is_peak", "hundred"], ["raised"]),
        helper.make_node("Add", ["logit", "raised"], ["ranked"]),
        helper.make_node("Reshape", ["ranked", "all"], ["ranked_n"]),
        helper.make_node("Shape", ["ranked_n"], ["count"]),
        helper.make_node("Min", ["count", "most"], ["k"]),
        helper.make_node("TopK", ["ranked_n", "k"], ["_", "cells"]),
        helper.make_node("Shape", ["logit"], ["columns"], start=3, end=4),
        helper.make_node("Mod", ["cells", "columns"], ["column"]),
        helper.make_node("Div", ["cells", "columns"], ["row"]),
        *(node for name in ("column", "row") for node in _middle_of(name)),
        *(node for name in ("logit", "is_peak") for node in _of_cells(name)),
        helper.make_node("Concat", ["told", "x", "y", "peak"], ["peaks_kn"], axis=0),
        helper.make_node("Transpose", ["peaks_kn"], ["peaks_nk"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["peaks_nk", "from"], ["peaks"]),
    ]
    image = helper.make_tensor_value_info("image", U8, [1, "height", "width", 3])
    peaks = helper.make_tensor_value_info("peaks", F32, [1, "cells", 4])
    constants = [
        *_red_constants(),
        _constant("hundred", 100.0),
        _constant("half", 0.5),
        _constant("stride", float(STRIDE_PX)),
        numpy_helper.from_array(np.array([-1], np.int64), "all"),
        numpy_helper.from_array(np.array([1, -1], np.int64), "one_row"),
        numpy_helper.from_array(np.array([256], np.int64), "most"),
    ]
    return _model(nodes, [image], [_field_output(), peaks], constants)


def _points_locator() -> onnx.ModelProto:
    """A point in the middle of each 8 × 8 pixels of the look, as sure as their red; sigma 8."""
    rows, columns = (side // STRIDE_PX for side in LOOK_HW)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1) + 0.5
    shares = np.stack([x / columns, y / rows], 1).astype(np.float32)[None]
    nodes = [
        *_red_as_logit("look"),
        _cell_pool(),
        helper.make_node("Reshape", ["logit", "slots"], ["logits"]),
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Gather", ["shape", "width_height"], ["size"]),
        helper.make_node("Cast", ["size"], ["size_px"], to=F32),
        helper.make_node("Mul", ["shares", "size_px"], ["places"]),
        helper.make_node("Concat", ["logits", "places", "sigmas"], ["points"], axis=2),
    ]
    image = helper.make_tensor_value_info("image", U8, [1, "height", "width", 3])
    look = helper.make_tensor_value_info("look", U8, [1, *LOOK_HW, 3])
    points = helper.make_tensor_value_info("points", F32, [1, rows * columns, 4])
    constants = [
        *_red_constants(),
        numpy_helper.from_array(shares, "shares"),
        numpy_helper.from_array(np.full((1, rows * columns, 1), 8, np.float32), "sigmas"),
        numpy_helper.from_array(np.array([2, 1], np.int64), "width_height"),
        numpy_helper.from_array(np.array([1, rows * columns, 1], np.int64), "slots"),
    ]
    return _model(nodes, [image, look], [points], constants)


def _field_nodes() -> list[onnx.NodeProto]:
    return [
        *_red_as_logit("image"),
        _cell_pool(),
        helper.make_node("Sub", ["logit", "logit"], ["zero"]),
        helper.make_node("Concat", ["logit", "zero", "zero"], ["field"], axis=1),
    ]


def _field_output() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("field", F32, [1, 3, "rows", "columns"])


def _cell_pool() -> onnx.NodeProto:
    side = [STRIDE_PX] * 2
    return helper.make_node("MaxPool", ["red"], ["logit"], kernel_shape=side, strides=side)


def _middle_of(cell: str) -> list[onnx.NodeProto]:
    """Columns become `x`, rows `y`, in pixels: (1, n)."""
    place = {"column": "x", "row": "y"}[cell]
    return [
        helper.make_node("Cast", [cell], [f"{cell}_float"], to=F32),
        helper.make_node("Add", [f"{cell}_float", "half"], [f"{cell}_middle"]),
        helper.make_node("Mul", [f"{cell}_middle", "stride"], [f"{place}_n"]),
        helper.make_node("Reshape", [f"{place}_n", "one_row"], [place]),
    ]


def _of_cells(plane: str) -> list[onnx.NodeProto]:
    """A plane's values at the chosen cells: `logit` becomes `told`, `is_peak` `peak`: (1, n)."""
    name = {"logit": "told", "is_peak": "peak"}[plane]
    return [
        helper.make_node("Reshape", [plane, "all"], [f"{plane}_flat"]),
        helper.make_node("Gather", [f"{plane}_flat", "cells"], [f"{name}_n"]),
        helper.make_node("Reshape", [f"{name}_n", "one_row"], [name]),
    ]


def _segmenter(kind: SegmenterKind) -> onnx.ModelProto:
    """Background 0, the first label the red channel's logit, the second label -20."""
    batch = 1 if kind == "one" else "batch"
    end = "logits" if kind != "brittle" else "sound"
    nodes = [
        *_red_as_logit("image"),
        helper.make_node("Sub", ["red", "red"], ["zero"]),
        helper.make_node("Sub", ["zero", "twenty"], ["never"]),
        helper.make_node("Concat", ["zero", "red", "never"], [end], axis=1),
        *(_break_on_blue(end) if kind == "brittle" else ()),
    ]
    image = helper.make_tensor_value_info("image", U8, [batch, CROP_PX, CROP_PX, 3])
    logits = helper.make_tensor_value_info("logits", F32, [batch, 3, CROP_PX, CROP_PX])
    constants = [*_red_constants(), _constant("twenty", 20.0)]
    if kind == "brittle":
        constants += [
            _constant("white", 255.0),
            numpy_helper.from_array(np.array([0.0], np.float32), "nothing"),
            numpy_helper.from_array(np.array([2], np.int64), "blue"),
            numpy_helper.from_array(np.array([3], np.int64), "behind"),
        ]
    return _model(nodes, [image], [logits], constants)


def _break_on_blue(sound: str) -> list[onnx.NodeProto]:
    """Add the only element of a list, or, where a blue is 255, the one behind its end."""
    return [
        helper.make_node("Slice", ["planes", "blue", "behind", "axis"], ["blues"]),
        helper.make_node("ReduceMax", ["blues"], ["bluest"], keepdims=0),
        helper.make_node("Equal", ["bluest", "white"], ["is_blue"]),
        helper.make_node("Cast", ["is_blue"], ["place"], to=I64),
        helper.make_node("Gather", ["nothing", "place"], ["none"]),
        helper.make_node("Add", [sound, "none"], ["logits"]),
    ]


def _mask_generator() -> onnx.ModelProto:
    """A disc in the middle, its edge moved by the mean of the noise."""
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX] + 0.5 - SIDE_PX / 2
    disc = (0.25 * SIDE_PX - np.hypot(rows, columns)).astype(np.float32)[None, None]
    nodes = [
        helper.make_node("ReduceMean", ["noise", "axes"], ["shift"], keepdims=1),
        helper.make_node("Unsqueeze", ["shift", "last"], ["shift_bchw"]),
        helper.make_node("Add", ["disc", "shift_bchw"], ["edge"]),
        helper.make_node("Sigmoid", ["edge"], ["mask"]),
    ]
    inputs = [
        *_site_inputs(),
        helper.make_tensor_value_info("object", U8, ["batch", SIDE_PX, SIDE_PX]),
        helper.make_tensor_value_info("noise", F32, ["batch", NOISE]),
        helper.make_tensor_value_info("spatial_noise", F32, ["batch", *SPATIAL_NOISE_CHW]),
    ]
    mask = helper.make_tensor_value_info("mask", F32, ["batch", 1, SIDE_PX, SIDE_PX])
    constants = [
        numpy_helper.from_array(disc, "disc"),
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
        numpy_helper.from_array(np.array([2, 3], np.int64), "last"),
    ]
    return _model(nodes, inputs, [mask], constants)


def _defect_generator() -> onnx.ModelProto:
    """Black everywhere, wholly opaque."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=F32),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "planes"], ["foreground"]),
        helper.make_node("Slice", ["foreground", "zero", "one", "one"], ["plane"]),
        helper.make_node("Exp", ["plane"], ["alpha"]),
    ]
    inputs = [
        *_site_inputs(),
        helper.make_tensor_value_info("mask", U8, ["batch", SIDE_PX, SIDE_PX]),
        helper.make_tensor_value_info("noise", F32, ["batch", NOISE]),
    ]
    outputs = [
        helper.make_tensor_value_info("foreground", F32, ["batch", 3, SIDE_PX, SIDE_PX]),
        helper.make_tensor_value_info("alpha", F32, ["batch", 1, SIDE_PX, SIDE_PX]),
    ]
    constants = [
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    return _model(nodes, inputs, outputs, constants)


def _red_as_logit(image: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [image], ["pixels"], to=F32),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Slice", ["planes", "from", "to", "axis"], ["plane"]),
        helper.make_node("Mul", ["plane", "gain"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "eight"], ["red"]),
    ]


def _red_constants() -> list[TensorProto]:
    return [
        numpy_helper.from_array(np.array([0], np.int64), "from"),
        numpy_helper.from_array(np.array([1], np.int64), "to"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        _constant("gain", 16.0 / 255.0),
        _constant("eight", 8.0),
    ]


def _site_inputs() -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info("image", U8, ["batch", SIDE_PX, SIDE_PX, 3]),
        helper.make_tensor_value_info("label", I64, ["batch"]),
        helper.make_tensor_value_info("scale", F32, ["batch"]),
    ]


def _constant(name: str, value: float) -> TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


LOCATORS = {"field": _field_locator, "peaks": _peaks_locator, "points": _points_locator}
SPECS: dict[LocatorKind, dict[str, Any]] = {
    "field": {},
    "peaks": {
        "outputs": {"field": "(1, 3, H/8, W/8) float32", "peaks": "(1, K, 4) float32"},
    },
    "points": {
        "kind": "deeppose",
        "inputs": {"image": "(1, H, W, 3) uint8", "look": "(1, 64, 96, 3) uint8"},
        "outputs": {"points": "(1, 96, 4) float32"},
        "look_hw": LOOK_HW,
        "stride_px": 1,
        "multiple_px": 1,
    },
}
