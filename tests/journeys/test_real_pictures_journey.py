"""The shipped ball-screw bundle on the validation pictures of BSData, as `evaluate` measures it."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.bundle import SHIPPED, find_bundle, open_bundle
from training.data import load_dataset, store_samples
from training.evaluation import evaluate_detection, evaluate_synthesis
from training.importers import import_folder

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


def test_the_shipped_bundle_finds_and_makes_what_the_manifest_says(
    bsdata_folder: Path, tmp_path: Path
) -> None:
    store_samples(import_folder(bsdata_folder), tmp_path, val_share=0.2, seed=7)
    data = load_dataset(tmp_path)
    bundle = open_bundle(find_bundle(SHIPPED, "ball-screw"))

    figures = evaluate_detection(data.val, bundle.detector)
    figures |= evaluate_synthesis(data.val_normals, bundle.synthesizer, count=200, seed=1)

    assert figures["coverage_at_5"] >= 0.85
    assert figures["recall_at_1_false_regions"] >= 0.70
    assert figures["made"] == 1.0
    for promise in ("identical", "legal", "inside", "visible"):
        assert figures[f"promise_{promise}"] == 1.0
    for name in ("coverage_at_5", "recall_as_calibrated", "image_auroc"):
        # Another CPU rounds otherwise, and one defect of 61 is 0.016.
        assert figures[name] == pytest.approx(bundle.manifest.figures[name], abs=0.04), name
