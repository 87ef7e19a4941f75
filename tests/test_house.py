"""The rules of CONTRIBUTING.md that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from models.bundle import SHIPPED, find_bundle, read_manifest
from service.settings import Settings

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "service", "training")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
SOURCES = [file for file in FILES if file.name != "__init__.py"]
FORBIDDEN = {"utils", "helpers", "common", "base", "core", "misc"}
FORBIDDEN |= {"manager", "handler", "processor", "data2", "tmp"}


def named(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_source_file_is_at_most_300_lines(file):
    assert len(file.read_text().splitlines()) <= 300


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=named)
def test_a_package_opens_with_one_docstring_and_nothing_else(folder):
    opening = ast.parse((folder / "__init__.py").read_text())

    assert ast.get_docstring(opening)
    assert len(opening.body) == 1


@pytest.mark.parametrize("file", SOURCES, ids=named)
def test_no_name_is_a_word_for_anything(file):
    words = set(file.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(ast.parse(file.read_text())):
        words |= words_of(node)

    assert not words & FORBIDDEN


def words_of(node: ast.AST) -> set[str]:
    """A class is read word by word, any other name whole."""
    match node:
        case ast.ClassDef(name=name):
            return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
            return {name}
    return set()


@pytest.mark.parametrize("file", SOURCES, ids=named)
def test_a_source_file_that_does_something_has_a_test_file_of_its_name(file):
    nodes = ast.walk(ast.parse(file.read_text()))
    if any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes):
        assert test_file_of(file).is_file()


def test_a_test_file_has_a_source_file_of_its_name():
    tests = {test for package in PACKAGES for test in (ROOT / "tests" / package).rglob("test_*.py")}

    assert tests <= {test_file_of(file) for file in SOURCES}


def test_file_of(file: Path) -> Path:
    return ROOT / "tests" / file.relative_to(ROOT).with_name(f"test_{file.stem.strip('_')}.py")


test_file_of.__test__ = False  # type: ignore[attr-defined]


def test_the_tree_in_the_readme_is_the_tree_on_the_disk():
    listed = set(paths_in_tree((ROOT / "README.md").read_text()))

    assert {path for path in listed if not (ROOT / path).exists()} == set()
    assert {named(file) for file in SOURCES} - listed == set()


def paths_in_tree(page: str) -> Iterator[str]:
    """The paths of the drawn tree; a folder's line may list its files: `trainers/  loop.py · …`."""
    parents: list[str] = []
    branches = r"^([│ ]*)[├└]── (\S+(?: \S+/)*) *((?:\w+\.py(?: · )?)*)"
    for indent, names, files in re.findall(branches, page, re.MULTILINE):
        del parents[len(indent) // 4 :]
        named_here = [name.strip("/") for name in names.split() if "<" not in name]
        yield from ("/".join([*parents, name]) for name in named_here)
        parents.append(names.split()[0].strip("/"))
        yield from ("/".join([*parents, file]) for file in files.split(" · ") if file)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_a_setting_is_documented(field):
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    variable = f"{Settings.model_config['env_prefix']}{field}".upper()

    assert any(re.search(rf"\b{variable}\b", page.read_text()) for page in pages)


@pytest.mark.parametrize("module", ["service.app", "models.__main__"])
def test_the_service_and_the_command_load_no_torch(module):
    loaded = run_python(f"import sys, {module}; print(*sys.modules)").split()

    assert module in loaded
    assert "torch" not in loaded


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def test_nobody_imports_what_the_contracts_forbid():
    command = Path(sys.executable).with_name("lint-imports")

    contracts = subprocess.run([command], cwd=ROOT, capture_output=True, text=True)

    assert contracts.returncode == 0, contracts.stdout


def test_no_file_names_a_place_on_its_authors_machine():
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = [ROOT / name for name in names.split("\0") if (ROOT / name).is_file()]

    homely = [named(file) for file in files if re.search(rb"/(work|root)/", file.read_bytes())]

    assert files
    assert homely == []


def test_the_changelog_has_a_place_for_the_next_change():
    assert re.search(r"^## \[?Unreleased\]?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_dependency_has_one_exact_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(line for extra in extras for line in extra)]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line.partition("==")[0] for line in lines if line and not line.startswith("#")]

    names = {canonicalize_name(Requirement(line).name) for line in asked} - {"flawsmith"}

    assert names <= set(pinned)
    assert len(set(pinned)) == len(pinned)


def test_what_is_installed_has_the_version_that_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    installed = installed_for("service", "training", "dev")

    assert {"fastapi", "numpy", "pytest", "starlette"} <= installed.keys()
    assert {name: v for name, v in installed.items() if pinned.get(name) != v} == {}


def installed_for(*extras: str) -> dict[str, str]:
    """Name -> version of all that these extras bring into this environment, one by another."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(f"flawsmith[{extra}]" for extra in extras)]
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    while asked:
        requirement = Requirement(asked.pop())
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "flawsmith":
                asked += project["optional-dependencies"].get(extra, [])
                continue
            with suppress(PackageNotFoundError):
                found[name] = version(name)
                asked += [
                    needed
                    for needed in requires(name) or []
                    if is_needed(Requirement(needed), extra)
                ]
    return found


def is_needed(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def test_a_shipped_bundle_is_at_most_35_mb():
    bundles = [manifest.parent for manifest in (ROOT / "models/bundles").rglob("manifest.json")]
    sizes = {named(b): sum(f.stat().st_size for f in b.rglob("*") if f.is_file()) for b in bundles}

    assert sizes
    assert {name: size for name, size in sizes.items() if size > 35_000_000} == {}


RESULT = re.compile(r"^\| `(?P<name>[a-z0-9_.]+)` \|.*\| (?P<ball>[\d.]+) \| (?P<plate>[\d.]+) \|$")


def test_the_results_are_the_figures_of_the_manifests():
    rows = [RESULT.match(line) for line in (ROOT / "docs/results.md").read_text().splitlines()]
    told = [row for row in rows if row]
    figures = {
        product: read_manifest(find_bundle(SHIPPED, product)).figures
        for product in ("ball-screw", "brushed-plate")
    }

    assert len(told) >= 20
    for row in told:
        for product, value in (("ball-screw", row["ball"]), ("brushed-plate", row["plate"])):
            assert float(value) == pytest.approx(figures[product][row["name"]], abs=5e-4), row[0]
