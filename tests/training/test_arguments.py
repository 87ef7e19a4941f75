from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from training.arguments import build_parser


def note(_: argparse.Namespace) -> None:
    """A step."""


NAMES = ("import", "fit", "export", "evaluate", "seal", "report", "propose")


def parse(*given: str) -> argparse.Namespace:
    return build_parser(dict.fromkeys(NAMES, note)).parse_args(given)


def test_a_command_says_which_step_to_run():
    parsed = parse("export", "--run", "r")

    assert parsed.step is note
    assert parsed.run == Path("r")


@pytest.mark.parametrize("given", [[], ["train"], ["export"], ["fit", "--run", "r", "--only", "x"]])
def test_what_no_command_takes_is_refused(given, capsys):
    with pytest.raises(SystemExit):
        parse(*given)

    assert "usage: python -m training" in capsys.readouterr().err


def test_a_products_name_is_refused_before_anything_is_read(capsys):
    with pytest.raises(SystemExit):
        parse("import", "--data", "d", "--run", "r", "--product", "My Part")

    assert "--product" in capsys.readouterr().err


def test_pictures_may_come_from_several_folders():
    parsed = parse("import", "--data", "d", "proposed", "--run", "r", "--product", "p")

    assert parsed.data == [Path("d"), Path("proposed")]
