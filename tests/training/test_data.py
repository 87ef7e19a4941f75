from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.errors import ParameterInvalid
from tests.training.specks import HW, LABELS, draw_record
from training.annotations import AnnotationMalformed
from training.data import (
    Dataset,
    Row,
    choose_pool,
    crop_radius_px,
    defect_sides_px,
    draw_labels,
    draw_split,
    keep_labels,
    keep_shots,
    load_dataset,
    require_both_kinds,
    require_split_by_group,
    split_samples,
    store_samples,
)
from training.importers import import_folder
from training.markings import Marking, Sample


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


def test_the_validation_side_may_be_loaded_alone(mask_folder, tmp_path):
    store_samples(import_folder(mask_folder), tmp_path, val_share=0.2, seed=7)

    whole, side = load_dataset(tmp_path), load_dataset(tmp_path, only_val=True)

    assert side.labels == whole.labels
    assert side.train == ()
    assert [record.name for record in side.val] == [record.name for record in whole.val]


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


def draw_samples(counts: dict[str, int], *, group_size: int = 3) -> list[Sample]:
    """Training pictures with so many of each label ("" for normal), and one of each for val."""
    samples = []
    for label, count in counts.items():
        for number in range(count + 1):
            split = "train" if number < count else "val"
            name = f"{label or 'normal'}-{number}"
            marks = (Marking(label, lambda hw: np.ones(hw, bool)),) if label else ()
            group = f"{split}-{label}-{number // group_size}"
            samples.append(Sample(Path(f"{name}.png"), group, split, marks))
    return samples


def labels_of(samples: list[Sample]) -> list[str]:
    return [m.label for s in samples if s.split == "train" for m in s.markings]


def test_shots_show_every_label_in_turn_from_different_groups():
    samples = draw_samples({"pit": 12, "crack": 9, "": 5})

    kept = keep_shots(samples, 5, seed=1)

    told = labels_of(kept)
    assert sorted(told.count(label) for label in ("pit", "crack")) == [2, 3]
    groups = [s.group for s in kept if s.split == "train" and s.markings]
    assert len(set(groups)) == 5


def test_shots_leave_normal_pictures_and_the_other_side_whole():
    samples = draw_samples({"pit": 12, "crack": 9, "": 5})

    kept = keep_shots(samples, 3, seed=1)

    assert sum(not s.markings for s in kept) == 6
    assert [s for s in kept if s.split == "val"] == [s for s in samples if s.split == "val"]


def test_shots_are_drawn_by_their_seed():
    samples = draw_samples({"pit": 12, "crack": 9, "": 5})
    first, again, other = (keep_shots(samples, 4, seed=seed) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_a_label_of_few_pictures_leaves_its_turns_to_the_others():
    kept = keep_shots(draw_samples({"pit": 12, "crack": 1, "": 5}), 6, seed=1)

    assert sorted(labels_of(kept)) == ["crack"] + 5 * ["pit"]


@pytest.mark.parametrize(
    ("count", "reason"),
    [(1, "1 cannot show all 2 labels"), (22, "22 of 21 training pictures with a defect")],
)
def test_shots_that_cannot_be_had_are_refused(count, reason):
    with pytest.raises(ParameterInvalid, match=f"shots: {reason}"):
        keep_shots(draw_samples({"pit": 12, "crack": 9, "": 5}), count, seed=1)


def test_only_pictures_of_the_named_kinds_and_normal_ones_are_kept():
    samples = draw_samples({"mt-pit": 2, "mt-crack": 2, "fray": 2, "": 2})
    both = replace(samples[0], markings=(*samples[0].markings, *samples[3].markings))

    kept = keep_labels([both, *samples[1:]], ["Pit", "fray"])

    assert set(labels_of(kept)) == {"mt-pit", "fray"}
    assert both not in kept
    assert sum(not s.markings for s in kept) == 3


def test_a_kind_that_no_picture_shows_is_refused():
    with pytest.raises(ParameterInvalid, match="labels: 'rust' is none of crack, pit"):
        keep_labels(draw_samples({"pit": 2, "crack": 2}), ["pit", "rust"])


def test_sides_that_the_data_names_are_kept_and_the_others_drawn(mask_folder):
    samples = [replace(s, split="") for s in import_folder(mask_folder)]
    samples[0] = replace(samples[0], split="test")

    sided = split_samples(samples, val_share=0.5, seed=3)

    assert sided[0].split == "test"
    assert {s.split for s in sided[1:]} == {"train", "val"}
    assert sided == split_samples(sided, val_share=0.1, seed=9)


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


def test_a_share_is_drawn_from_the_synthetic_and_the_rest_from_the_real():
    drawn = [choose_pool("ab", "xyz", 0.3, np.random.default_rng(i)) for i in range(2000)]

    assert abs(drawn.count("xyz") / 2000 - 0.3) < 0.04
    assert set(drawn) == {"ab", "xyz"}


def test_without_the_synthetic_chance_draws_the_real_as_ever():
    rngs = [np.random.default_rng(4) for _ in range(2)]

    assert choose_pool("ab", "", 0.9, rngs[0]) == "ab"
    assert rngs[0].random() == rngs[1].random()


def test_where_markings_overlap_the_later_one_counts():
    left = Marking("pit", lambda hw: np.arange(hw[1]) < np.full((hw[0], 1), 6))
    middle = Marking("crack", lambda hw: np.arange(hw[1]) == np.full((hw[0], 1), 5))

    label_map = draw_labels([left, middle], (2, 8), ["crack", "pit"])

    assert label_map.tolist() == [[2, 2, 2, 2, 2, 1, 0, 0]] * 2
