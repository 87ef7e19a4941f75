from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from models.bundle import read_manifest, seal_bundle
from models.errors import BundleAltered
from models.manifest import GRAPH_FILES
from tests.tiny import tiny_manifest, write_tiny_bundle
from tests.training.trainers.test_stages import quick_recipe
from training import graphs
from training.data import load_dataset, store_samples
from training.export import export_graph
from training.importers import import_folder
from training.recipes import Recipe
from training.starting import StartMismatch, start_from, start_from_bundle
from training.trainers.pages import choose_pages, shape_pages
from training.trainers.stages import (
    fit_stages,
    load_mask_generator,
    new_defect_generator,
    new_mask_generator,
    origin_of,
    site_sources,
)

EXPORTS = {
    "mask_generator": graphs.mask_generator_export,
    "defect_generator": graphs.defect_generator_export,
}
STAGES = tuple(EXPORTS)


def new_network(stage: str, labels: int, *, seed: int, width: int = 8, pages: int = 4) -> nn.Module:
    """An untrained generator; no other seed's is like it, nor any two of its weights alike."""
    asked = replace(getattr(quick_recipe(), stage), width=width, pages=pages)
    recipe = replace(quick_recipe(), **{stage: asked})
    new = new_mask_generator if stage == "mask_generator" else new_defect_generator
    torch.manual_seed(seed)
    return new(recipe, labels).eval()


def write_graph(stage: str, network: nn.Module, labels: int, folder: Path) -> Path:
    path = folder / f"{stage}.onnx"
    export_graph(EXPORTS[stage](network, labels), path)
    return path


def write_bundle(networks: dict[str, nn.Module], folder: Path) -> Path:
    """A sealed bundle with these generators, of the tiny bundle's labels."""
    tiny = write_tiny_bundle(folder / "tiny", product="tiny")
    files = {file: tiny / file for file in GRAPH_FILES}
    for stage, network in networks.items():
        files[f"{stage}.onnx"] = write_graph(stage, network, 2, folder)
    return seal_bundle(files, tiny_manifest(files, product="part", version="1"), folder)


def embedding_of(network: nn.Module) -> Tensor:
    """The rows of the labels."""
    (rows,) = (m.weight.detach() for m in network.modules() if isinstance(m, nn.Embedding))
    return rows


def answer(stage: str, network: nn.Module) -> tuple[Tensor, ...]:
    """What a network makes of the same inputs."""
    with torch.no_grad():
        out = network(*EXPORTS[stage](network, 2).other.values())
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize("stage", STAGES)
def test_a_network_started_from_a_graph_answers_as_the_exported_one(tmp_path, stage):
    trained, fresh = (new_network(stage, 2, seed=seed) for seed in (1, 2))
    path = write_graph(stage, trained, 2, tmp_path)
    assert not torch.equal(answer(stage, trained)[0], answer(stage, fresh)[0])

    copied = start_from(fresh, path)

    assert set(copied) == {n for n in trained.state_dict() if not n.startswith("book.")}
    for was, now in zip(answer(stage, trained), answer(stage, fresh), strict=True):
        assert torch.equal(was, now)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("pages", [2, 5])
def test_a_network_keeps_its_own_book_whatever_the_graphs_holds(tmp_path, stage, pages):
    trained, fresh = (new_network(stage, 2, seed=seed, pages=n) for seed, n in ((1, 3), (2, pages)))
    for network in (trained, fresh):
        for weight in network.book.parameters():
            nn.init.normal_(weight)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}

    start_from(fresh, write_graph(stage, trained, 2, tmp_path))

    given = trained.state_dict()
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("book.") else given[name]), name


@pytest.mark.parametrize("stage", STAGES)
def test_every_weight_stands_in_the_graph_even_where_two_are_alike(tmp_path, stage):
    network = new_network(stage, 2, seed=1)
    for weight in network.parameters():
        nn.init.constant_(weight, 0.125)

    graph = onnx.load(write_graph(stage, network, 2, tmp_path)).graph

    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    weights = {name: tuple(v.shape) for name, v in network.state_dict().items()}
    chosen_by = {"book.outlines", "book.scales"}
    weights = {n: v for n, v in weights.items() if n not in chosen_by or n in shapes}
    assert shapes == weights  # what pages are chosen by stands in the graph that compares it alone
    assert not shapes.keys() & {given.name for given in graph.input}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("labels", [1, 5])
def test_another_number_of_labels_starts_each_at_the_mean(tmp_path, stage, labels):
    trained, fresh = new_network(stage, 2, seed=1), new_network(stage, labels, seed=2)

    start_from(fresh, write_graph(stage, trained, 2, tmp_path))

    mean = embedding_of(trained).mean(0)
    assert torch.equal(embedding_of(fresh), mean.expand(labels, -1))


def test_labels_of_the_same_name_keep_their_embedding_wherever_they_stand(tmp_path):
    trained, fresh = (new_network("mask_generator", n, seed=n) for n in (2, 3))
    path = write_graph("mask_generator", trained, 2, tmp_path)

    start_from(fresh, path, labels=("crack", "dent", "pit"), known=("pit", "crack"))

    pit, crack = embedding_of(trained)
    expected = torch.stack([crack, embedding_of(trained).mean(0), pit])
    assert torch.equal(embedding_of(fresh), expected)


@pytest.mark.parametrize("stage", STAGES)
def test_a_graph_of_another_width_is_refused_and_changes_nothing(tmp_path, stage):
    wide, narrow = (new_network(stage, 2, seed=1, width=width) for width in (16, 8))
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    path = write_graph(stage, wide, 2, tmp_path)

    with pytest.raises(StartMismatch, match=rf"{stage}\.onnx .*another width.* is \(.*\), here \("):
        start_from(narrow, path)

    assert all(torch.equal(value, before[name]) for name, value in narrow.state_dict().items())


def test_a_graph_of_the_other_stage_is_refused_by_the_weights_it_lacks_or_has_beside(tmp_path):
    masks, defects = (new_network(stage, 2, seed=1) for stage in STAGES)
    path = write_graph("mask_generator", masks, 2, tmp_path)

    with pytest.raises(StartMismatch, match=r"mask_generator\.onnx"):
        start_from(defects, path)


def test_a_graph_with_a_weight_too_many_or_too_few_is_refused_by_its_name(tmp_path):
    network = new_network("mask_generator", 2, seed=1)
    path = write_graph("mask_generator", network, 2, tmp_path)
    one, more = nn.Sequential(), nn.ModuleDict({"spare": nn.Linear(2, 2)})
    one.register_buffer("grid", network.grid)
    for name, part in network.named_children():
        one.add_module(name, part)
        more[name] = part
    delattr(one, "condition")

    with pytest.raises(StartMismatch, match=r"condition\.\S+ has no place here"):
        start_from(one, path)
    with pytest.raises(StartMismatch, match=r"has no spare\.weight; it has no spare\.bias"):
        start_from(more, path)


def test_a_bundle_gives_its_labels_by_name(tmp_path):
    trained = {stage: new_network(stage, 2, seed=1) for stage in STAGES}
    folder = write_bundle(trained, tmp_path)
    first, second = read_manifest(folder).labels
    fresh = new_network("defect_generator", 2, seed=2)

    start_from_bundle(fresh, folder, "defect_generator", (second, first))

    assert torch.equal(embedding_of(fresh), embedding_of(trained["defect_generator"]).flip(0))


def test_a_bundle_that_was_altered_is_no_start(tmp_path):
    folder = write_bundle({}, tmp_path)
    (folder / "mask_generator.onnx").write_bytes(b"altered")

    with pytest.raises(BundleAltered, match=r"mask_generator\.onnx"):
        start_from_bundle(nn.Identity(), folder, "mask_generator", ("pit",))


def test_a_training_goes_on_from_the_bundle_it_starts_from(tmp_path, mask_folder, fabric):
    run = tmp_path / "run"
    run.mkdir()
    store_samples(import_folder(mask_folder), run, val_share=0.2, seed=7)
    trained = new_network("mask_generator", 2, seed=1)
    folder = write_bundle({"mask_generator": trained}, tmp_path)

    fit_stages(run, still_recipe(), ("mask_generator",), fabric, folder)

    fitted = load_mask_generator(run, still_recipe(), 2).state_dict()
    for name, value in trained.state_dict().items():
        if value.shape != embedding_of(trained).shape and not name.startswith("book."):
            assert torch.allclose(fitted[name], value, atol=1e-6), name
    sources = site_sources(still_recipe(), load_dataset(run), 64)
    pages = choose_pages(sources["train"], still_recipe().mask_generator.pages)
    assert torch.allclose(fitted["book.pages"], shape_pages(sources["train"], pages)[0], atol=1e-5)


def test_a_bundle_that_does_not_fit_is_refused_before_any_training(tmp_path, mask_folder, fabric):
    run = tmp_path / "run"
    run.mkdir()
    store_samples(import_folder(mask_folder), run, val_share=0.2, seed=7)
    folder = write_bundle({"mask_generator": new_network("mask_generator", 2, seed=1)}, tmp_path)

    with pytest.raises(StartMismatch, match=r"defect_generator\.onnx"):
        fit_stages(run, quick_recipe(), STAGES, fabric, folder)

    assert not list(run.glob("*.pt"))


def test_only_the_generators_depend_on_the_bundle_they_start_from(tmp_path, mask_folder):
    store_samples(import_folder(mask_folder), tmp_path, val_share=0.2, seed=7)
    (tmp_path / "locator.pt").write_bytes(b"trained")
    folder = write_bundle({}, tmp_path)

    depends = {
        stage: origin_of(stage, tmp_path, quick_recipe(), folder)
        != origin_of(stage, tmp_path, quick_recipe())
        for stage in ("locator", "segmenter", *STAGES)
    }

    assert depends == {
        "locator": False,
        "segmenter": False,
        "mask_generator": True,
        "defect_generator": True,
    }


def still_recipe() -> Recipe:
    """Steps so small that the network stays where it starts."""
    recipe = quick_recipe()
    schedule = replace(recipe.mask_generator.schedule, learning_rate=1e-9)
    return replace(recipe, mask_generator=replace(recipe.mask_generator, schedule=schedule))
