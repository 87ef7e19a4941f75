"""SAHI itself (Akyon et al. 2022, arXiv:2202.06934) with the bundle's segmenter as its model.

Its own slices, its own merging, its defaults but for two: slices come in batches, and none shows
the whole picture, which a segmenter of small crops cannot take.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from sahi.models.base import DetectionModel
from sahi.predict import get_sliced_prediction
from sahi.prediction import ObjectPrediction
from sahi.utils.cv import get_coco_segmentation_from_bool_mask

from models.arrays import RgbImage, Scores
from models.detection import BATCH, Detector, segment_crops
from models.steps.crops import Window, cut_crop
from models.steps.outlines import Region, bridge_diagonals, find_regions
from models.steps.pictures import Picture
from tests.bench.methods import Method, outline_scores
from tests.bench.slicing import OVERLAP
from training.metrics import Predicted
from training.tapes import record_detector

LEAST_CONFIDENCE = 0.1
"""No region's mean is below its mask threshold, so nothing is lost; below, SAHI would not merge."""


class CropSegmenter(DetectionModel):  # type: ignore[misc]
    """The segmenter of crops as SAHI wants a model: slices in, regions with scores out."""

    def set_model(self, model: Detector, **_: Any) -> None:
        """Take a detector; only its segmenter is used."""
        self.model = model
        self.category_mapping = {"0": "defect"}

    def perform_inference(self, image: RgbImage) -> None:
        """Look into one slice."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[RgbImage]) -> None:
        """Look into slices, all at once."""
        side_px = self.model.params.crop_size_px
        crops = [cut_crop(image, Window(0, 0, side_px)) for image in images]
        self._original_predictions = [
            1.0 - scores[0, : image.shape[0], : image.shape[1]]
            for scores, image in zip(segment_crops(crops, self.model), images, strict=True)
        ]

    def _create_object_prediction_list_from_original_predictions(
        self,
        shift_amount_list: Any = ((0, 0),),
        full_shape_list: Any = None,
    ) -> None:
        shifts = np.reshape(shift_amount_list, (-1, 2)).tolist()
        shapes = np.reshape(full_shape_list, (-1, 2)).tolist()
        self._object_prediction_list_per_image = [
            self._read_slice(scores, shift, shape)
            for scores, shift, shape in zip(self._original_predictions, shifts, shapes, strict=True)
        ]

    def _read_slice(
        self, scores: Scores, shift: list[int], shape: list[int]
    ) -> list[ObjectPrediction]:
        found = outline_scores(scores, self.mask_threshold, 0.0)
        answers = []
        for one in found:
            whole = np.zeros(scores.shape, bool)
            x, y, width, height = one.region.box
            whole[y : y + height, x : x + width] = one.region.mask
            # SAHI knows polygons of three points and more only
            if segmentation := get_coco_segmentation_from_bool_mask(whole):
                answers.append(
                    ObjectPrediction(
                        bbox=[x, y, x + width, y + height],
                        category_id=0,
                        category_name="defect",
                        segmentation=segmentation,
                        score=one.score,
                        shift_amount=shift,
                        full_shape=shape,
                    )
                )
        return answers


def sahi_method(detector: Detector) -> Method:
    """SAHI's sliced prediction, slices of the crop's side."""
    taped, tapes = record_detector(detector)
    model = CropSegmenter(model=taped, device="cpu", confidence_threshold=LEAST_CONFIDENCE)
    side_px, min_area_px = detector.params.crop_size_px, detector.params.min_area_px

    def find(picture: Picture, mask_threshold: float) -> list[Predicted]:
        model.mask_threshold = mask_threshold
        answer = get_sliced_prediction(
            picture.as_rgb8(),
            model,
            slice_height=side_px,
            slice_width=side_px,
            overlap_height_ratio=OVERLAP,
            overlap_width_ratio=OVERLAP,
            perform_standard_pred=False,
            batch_size=BATCH,
            verbose=0,
        )
        return [
            Predicted(region, float(one.score.value))
            for one in answer.object_prediction_list
            for region in fill_polygons(one.mask.segmentation)
            if region.area_px >= min_area_px
        ]

    return Method("SAHI", find, tapes)


def fill_polygons(segmentation: list[list[float]]) -> list[Region]:
    """The regions of an answer of SAHI's, whose polygons run through the centres of pixels."""
    rings = [
        np.asarray(ring, float).reshape(-1, 2).round().astype(np.int32) for ring in segmentation
    ]
    corner = np.concatenate(rings).min(axis=0)
    width, height = np.concatenate(rings).max(axis=0) - corner + 1
    canvas = np.zeros((int(height), int(width)), np.uint8)
    cv2.fillPoly(canvas, [ring - corner for ring in rings], 1)
    offset_xy = (int(corner[0]), int(corner[1]))
    return find_regions(bridge_diagonals(canvas > 0), offset_xy=offset_xy)
