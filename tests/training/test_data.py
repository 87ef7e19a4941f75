from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.specks import HW, LABELS, draw_record
from training.annotations import AnnotationMalformed
from training.data import (
    Dataset,
    Row,
    crop_radius_px,
    defect_sides_px,
    draw_split,
    load_dataset,
    require_both_kinds,
    require_split_by_group,
    store_samples,
)
from training.importers import import_folder


def test_what_is_stored_is_loaded_again(mask_folder, tmp_path, data):
    store_samples(import_folder(mask_folder), tmp_path, val_share=0.2, seed=7)

    loaded = load_dataset(tmp_path)

    assert loaded.labels == data.labels
    for side in ("train", "val"):
        stored = {record.group: record for record in getattr(data, side)}
        assert {record.group for record in getattr(loaded, side)} == set(stored)
        for record in getattr(loaded, side):
            assert np.array_equal(record.image, stored[record.group].image)
            assert np.array_equal(record.labels, stored[record.group].labels)


def test_every_record_has_a_name_of_its_own(mask_folder, tmp_path):
    store_samples(import_folder(mask_folder), tmp_path, val_share=0.2, seed=7)

    loaded = load_dataset(tmp_path)

    names = [record.name for record in (*loaded.train, *loaded.val)]
    assert len(set(names)) == len(names)


def test_a_drawn_split_never_parts_a_group(mask_folder, tmp_path):
    rows = ["image,group"]
    rows += [f"{i}.png,{i % 6}" for i in range(18)] + [f"{i}.png,{i % 6}" for i in range(100, 109)]
    (mask_folder / "split.csv").write_text("\n".join(rows))

    store_samples(import_folder(mask_folder), tmp_path, val_share=0.4, seed=1)

    loaded = load_dataset(tmp_path)
    sides = [{record.group for record in side} for side in (loaded.train, loaded.val)]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_the_share_of_groups_drawn_for_validation_is_as_asked():
    drawn = [draw_split(str(i), val_share=0.3, seed=5) for i in range(2000)]

    assert abs(drawn.count("val") / 2000 - 0.3) < 0.04
    assert drawn == [draw_split(str(i), val_share=0.3, seed=5) for i in range(2000)]
    assert drawn != [draw_split(str(i), val_share=0.3, seed=6) for i in range(2000)]


def test_a_group_on_both_sides_is_refused(tmp_path):
    rows = [Row("a", "", "7", "train"), Row("b", "", "7", "val")]

    with pytest.raises(AnnotationMalformed, match=r"both sides: \['7'\]"):
        require_split_by_group(rows, tmp_path)


def test_a_side_without_groups_is_refused(tmp_path):
    with pytest.raises(AnnotationMalformed, match="no group is left for val"):
        require_split_by_group([Row("a", "", "7", "train")], tmp_path)


@pytest.mark.parametrize(("labels", "missing"), [("", "defect"), ("a.png", "normal picture")])
def test_a_side_of_one_kind_alone_is_refused(tmp_path, labels, missing):
    rows = [
        Row("a", "a.png", "1", "train"),
        Row("b", "", "2", "train"),
        Row("c", labels, "3", "val"),
    ]

    with pytest.raises(AnnotationMalformed, match=f"no {missing} is left for val"):
        require_both_kinds(rows, tmp_path)


def test_a_label_that_no_training_picture_carries_is_refused(mask_folder, tmp_path):
    samples = import_folder(mask_folder)
    stray = next(i for i, s in enumerate(samples) if s.split == "val" and s.markings)
    marking = replace(samples[stray].markings[0], label="stray")
    samples[stray] = replace(samples[stray], markings=(marking,))

    with pytest.raises(AnnotationMalformed, match="no training picture carries 'stray'"):
        store_samples(samples, tmp_path, val_share=0.2, seed=7)


def test_a_broken_marked_picture_is_refused_by_its_name(mask_folder, tmp_path):
    samples = import_folder(mask_folder)
    broken = next(s.image for s in samples if s.markings)
    broken.write_bytes(broken.read_bytes()[:60])

    with pytest.raises(AnnotationMalformed, match=rf"{broken.name}: picture"):
        store_samples(samples, tmp_path, val_share=0.2, seed=7)


def test_a_broken_normal_picture_is_refused_by_its_name(mask_folder, tmp_path):
    samples = import_folder(mask_folder)
    broken = next(s.image for s in samples if not s.markings)
    broken.write_bytes(b"no picture")
    store_samples(samples, tmp_path, val_share=0.2, seed=7)

    with pytest.raises(AnnotationMalformed, match=rf"{broken.name}: picture"):
        load_dataset(tmp_path)


def test_each_connected_region_of_a_label_is_a_flaw():
    record = draw_record(3, kinds=(1, 2))

    assert {flaw.label for flaw in record.flaws} == {1, 2}
    assert sum(flaw.region.area_px for flaw in record.flaws) == np.count_nonzero(record.labels)


def test_pictures_are_sorted_by_whether_they_have_a_flaw(data):
    assert len(data.train_defects) == 12
    assert len(data.train_normals) == 6
    assert len(data.val_normals) == 3
    assert all(record.flaws for record in data.train_defects)


def test_a_crop_may_move_as_far_as_the_largest_defect_stays_whole(data):
    largest = defect_sides_px(data.train).max()

    assert largest == 18
    assert crop_radius_px(64, data) == (64 - 18) / 2
    assert crop_radius_px(10, data) == 0.0


def test_a_dataset_of_normals_has_no_sides():
    record = draw_record(1, kinds=())

    assert defect_sides_px(Dataset(LABELS, (record,), ()).train).size == 0
    assert record.labels.shape == HW


@pytest.mark.real_data
@pytest.mark.slow
def test_bsdata_is_split_as_its_split_file_says(bsdata_folder, tmp_path):
    samples = import_folder(bsdata_folder)

    store_samples(samples, tmp_path, val_share=0.2, seed=7)

    sides = {side: [s for s in samples if s.split == side] for side in ("train", "val")}
    assert sum(bool(sample.markings) for sample in samples) == 281
    assert len(sides["val"]) == 147
    assert not {s.group for s in sides["train"]} & {s.group for s in sides["val"]}
    assert len(list((tmp_path / "labels").glob("*.png"))) == 281
