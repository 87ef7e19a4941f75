from __future__ import annotations

import numpy as np
import pytest

from models.arrays import RgbImage
from models.steps.contexts import describe_context, most_familiar, read_contexts, write_contexts

SIDE_PX = 48
FLAT = np.full((SIDE_PX, SIDE_PX, 3), 120, np.uint8)


def edge(dark_share: float, *, level: int = 40) -> RgbImage:
    """A square that is dark at its left end."""
    square = FLAT.copy()
    square[:, : round(dark_share * SIDE_PX)] = level
    return square


def described(*squares: RgbImage) -> np.ndarray:
    return np.stack([describe_context(square) for square in squares])


def test_a_square_is_described_by_the_mean_colours_of_its_cells() -> None:
    square = FLAT.copy()
    square[:8, 8:16] = (10, 20, 30)
    square[:4, :8] = 122

    cells = describe_context(square).reshape(6, 6, 3)

    assert cells[0, 1].tolist() == [10, 20, 30]
    assert cells[0, 0].tolist() == [121, 121, 121]
    assert (cells[1:] == 120).all()


@pytest.mark.parametrize("side_px", [24, 64, 128])
def test_a_description_has_one_length_whatever_the_squares_side(side_px: int) -> None:
    described = describe_context(np.zeros((side_px, side_px, 3), np.uint8))

    assert (described.shape, described.dtype) == ((108,), np.uint8)


def test_of_some_squares_the_one_like_any_of_the_contexts_is_found() -> None:
    contexts = described(edge(0.5), np.full_like(FLAT, 250))

    assert most_familiar([FLAT, edge(0.48), np.full_like(FLAT, 200)], contexts) == 1
    assert most_familiar([FLAT, edge(0.1), np.full_like(FLAT, 249)], contexts) == 2


def test_a_mirrored_context_is_as_familiar_and_one_upside_down_is_not() -> None:
    contexts = described(edge(0.5))
    mirrored, tipped = edge(0.5)[:, ::-1].copy(), edge(0.5).swapaxes(0, 1).copy()

    assert most_familiar([FLAT, mirrored], contexts) == 1
    assert most_familiar([tipped, mirrored], contexts) == 1


def test_a_large_difference_of_levels_does_not_wrap_around() -> None:
    contexts = described(np.zeros_like(FLAT))

    assert most_familiar([np.full_like(FLAT, 255), np.full_like(FLAT, 60)], contexts) == 1


def test_of_equals_the_first_is_taken() -> None:
    assert most_familiar([FLAT, FLAT], described(edge(0.3))) == 0


@pytest.mark.parametrize("count", [1, 2, 96])
def test_contexts_come_back_from_text_as_they_were(count: int) -> None:
    contexts = np.random.default_rng(count).integers(0, 256, (count, 108), np.uint8)

    text = write_contexts(contexts)

    assert np.array_equal(read_contexts(text), contexts)
    assert len(text) == 144 * count


def test_no_text_is_no_contexts() -> None:
    assert read_contexts("").shape == (0, 108)
