from __future__ import annotations

import io
import json
import zipfile
from collections import Counter

import numpy as np
import pytest

from models.steps.drafts import SyntheticDefect
from models.steps.outlines import find_regions
from models.synthesis import Synthetic
from service.archives import Archive


def made(count):
    """Samples of 10 × 12 px with a pit of 6 px each, and files that are only their names."""
    mask = np.zeros((10, 12), bool)
    mask[2:4, 5:8] = True
    (region,) = find_regions(mask)
    pit = SyntheticDefect("pit", region)
    for seed in range(count):
        rejected = Counter({"cut": seed})
        sample = Synthetic(seed, mask.view(np.uint8), mask, (pit,), rejected, {})
        yield sample, f"picture {seed}".encode(), f"mask {seed}".encode()


def new_archive(encoded):
    return Archive(encoded, (10, 12), ("scratch", "pit"), {"id": "1", "seed": 0})


def test_the_pieces_are_a_zip_of_every_file_and_the_truth():
    archive = new_archive(made(3))

    content = b"".join(iter(archive.take, b""))

    files = zipfile.ZipFile(io.BytesIO(content))
    coco = json.loads(files.read("annotations.json"))
    assert files.testzip() is None
    assert files.read("image_0002.png") == b"picture 2"
    assert files.read("mask_0000.png") == b"mask 0"
    assert coco["info"]["rejected_by_reason"] == {"cut": 3}
    assert coco["info"]["rejected"] == 3
    assert [one["category_id"] for one in coco["annotations"]] == [2, 2, 2]
    assert [one["image_id"] for one in coco["annotations"]] == [0, 1, 2]
    assert coco["images"][1]["height"] == 10


def test_a_sample_is_asked_for_when_the_ones_before_are_taken():
    asked = []
    encoded = (asked.append(one[0].seed) or one for one in made(3))

    archive = new_archive(encoded)
    at_first = list(asked)
    archive.take()
    after_taking = list(asked)
    archive.take()

    assert (at_first, after_taking, asked) == ([0], [0], [0, 1])


def test_an_order_that_fails_at_its_first_sample_makes_no_archive():
    def never():
        raise KeyError("first")
        yield

    with pytest.raises(KeyError, match="first"):
        new_archive(never())
