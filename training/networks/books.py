"""Books of real defects that the generators begin from: shapes, and what fills them.

A book's pages are parameters: they begin as real defects and are trained with the rest. Noise opens
the book at a page or between a few, as they are or mirrored left to right, and turns, shears,
stretches and bends what it finds there. All that a generator's encoder and decoder add is a
residual to it.
Shape suffixes: b batch, p pages, c channels, h height, w width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHOICE_NOISE = 32
"""Numbers of a noise that choose pages; they guide the decoder too."""
BEND_CELLS = 4
"""Cells on a side of the field that bends a page."""
WARP_NOISE = 4 + 2 * BEND_CELLS**2
"""Numbers of a noise that warp a page: turn, shear, two stretches; bends along x and y."""
CODE_NOISE = CHOICE_NOISE + WARP_NOISE
"""All of a noise that opens a book."""
FIRMNESS = 100.0
"""How much the page that a noise likes most outweighs the others: mixed shapes are smooth ones."""
SIZE_FIT = 200.0
"""How much less a page is liked whose defect is twice or half as large as the one asked for."""
FIT = 1000.0
"""How much a page is liked for an outline like the one that is asked for."""
OUTLINE_SIDE = 16
"""Cells on a side of the outlines that are compared."""
NEVER = 1e5
"""What another label's page is liked less by: a softmax leaves nothing of it."""
LEAST_HALF = 0.03
"""Half the side of the smallest box, in shares of half a square: about 2 px of 128."""


class Book(nn.Module):
    """Pages (p, c, h, w), each of one label, with directions of noise (2p, CHOICE_NOISE).

    The second half of the directions, as of every share, is that of the mirrored pages. `labels`,
    `scales`, `outlines` and what the pages begin as are the product's own: see `fill`.
    """

    labels: Tensor
    scales: Tensor
    outlines: Tensor

    def __init__(self, pages: int, channels: int, side_px: int, *, freedom: float = 1.0) -> None:
        super().__init__()
        self.pages = nn.Parameter(torch.zeros(pages, channels, side_px, side_px))
        self.register_buffer("labels", torch.zeros(pages, dtype=torch.int64))
        self.register_buffer("scales", torch.zeros(pages))
        self.register_buffer("outlines", torch.zeros(pages, 1, OUTLINE_SIDE, OUTLINE_SIDE))
        directions = torch.randn(
            2 * pages, CHOICE_NOISE, generator=torch.Generator().manual_seed(0)
        )
        self.directions = nn.Parameter(F.normalize(directions, dim=1))
        self.warp = Warp(freedom)

    def fill(
        self,
        pages_pchw: Tensor,
        labels_p: Tensor,
        *,
        scales_p: Tensor | None = None,
        outlines_phw: Tensor | None = None,
    ) -> None:
        """Write every page anew, as real defects have it.

        Scales (p,), log2 of picture pixels per crop pixel of a square around each defect, and
        outlines (p, 1, 16, 16) where pages are to be chosen by them.
        """
        self.pages.data.copy_(pages_pchw)
        self.labels.copy_(labels_p)
        if scales_p is not None:
            self.scales.copy_(scales_p)
        if outlines_phw is not None:
            self.outlines.copy_(outlines_phw)

    def choose(
        self,
        noise_bc: Tensor,
        label_b: Tensor,
        *,
        scale_b: Tensor | None = None,
        outline_bchw: Tensor | None = None,
    ) -> Tensor:
        """How much of each page of the label: the softmax of the noise's likeness to directions.

        Where a scale is told, pages of defects of about that size are liked more: a small defect
        is no large one made smaller. Where an outline is asked for, pages whose own is like it are:
        what fills a defect goes with its shape.

        Shapes: noise (B, CHOICE_NOISE), label (B,) int64, scale (B,), outline (B, 1, 16, 16) in
                0..1 -> (B, 2p), summing to 1; a label without a page of its own is given those of
                all.
        """
        liking = noise_bc @ self.directions.T * FIRMNESS
        if scale_b is not None:
            octaves = torch.cat([self.scales] * 2)[None] - scale_b[:, None]
            liking = liking - SIZE_FIT * octaves.square()
        if outline_bchw is not None:
            known = torch.cat([self.outlines, self.outlines.flip(3)])
            liking = liking + FIT * _unit(outline_bchw) @ _unit(known).T
        is_other = (torch.cat([self.labels] * 2)[None] != label_b[:, None]).to(liking.dtype)
        return (liking - NEVER * is_other).softmax(1)

    def open(self, share_bp: Tensor, noise_bc: Tensor, grid_bhw2: Tensor) -> Tensor:
        """What stands at the places of a grid; beyond a page its rim goes on.

        Shapes: share (B, 2p) of each page, noise (B, WARP_NOISE), grid (B or 1, h, w, 2) of places
                x, y in -1..1 of the page -> (B, c, h, w).
        """
        pages, channels, side_px, _ = self.pages.shape
        both = torch.cat([self.pages, self.pages.flip(3)])
        mixed_bc = share_bp @ both.reshape(2 * pages, -1)
        page_bchw = mixed_bc.view(-1, channels, side_px, side_px)
        grid_bhw2 = self.warp(grid_bhw2, noise_bc)
        return F.grid_sample(page_bchw, grid_bhw2, padding_mode="border", align_corners=False)


class Warp(nn.Module):
    """Turns, shears, stretches and bends a grid by noise; how far is learned.

    freedom: the share of its full reach that it begins with.
    reach: standard deviations of turn in radians, shear, and log stretch along x and y; bend: of
    each cell's move, in half sides.
    """

    def __init__(self, freedom: float = 1.0) -> None:
        super().__init__()
        self.reach = nn.Parameter(freedom * torch.tensor([0.4, 0.1, 0.18, 0.18]))
        self.bend = nn.Parameter(freedom * torch.tensor(0.03))

    def forward(self, grid_bhw2: Tensor, noise_bc: Tensor) -> Tensor:
        """Places (B, h, w, 2) and noise (B, WARP_NOISE) -> where to look instead, (B, h, w, 2)."""
        moves, bends = torch.split(noise_bc, [4, 2 * BEND_CELLS**2], dim=1)
        return self._turn(grid_bhw2, moves) + self._bend(grid_bhw2, bends)

    def _turn(self, grid_bhw2: Tensor, moves_bc: Tensor) -> Tensor:
        """Turned, sheared and stretched."""
        turn, shear, wide, high = (moves_bc * self.reach).unbind(1)
        moves = (turn.cos(), turn.sin(), shear, wide.exp(), high.exp())
        cosine, sine, shear, wide, high = (move[:, None, None] for move in moves)
        x, y = grid_bhw2[..., 0], grid_bhw2[..., 1]
        turned_x = wide * (cosine * x - sine * y + shear * y)
        turned_y = high * (sine * x + cosine * y)
        return torch.stack([turned_x, turned_y], -1)

    def _bend(self, grid_bhw2: Tensor, bends_bc: Tensor) -> Tensor:
        """A smooth field of moves, from a few cells."""
        cells_bchw = self.bend * bends_bc.view(-1, 2, BEND_CELLS, BEND_CELLS)
        grid_bhw2 = grid_bhw2.expand(cells_bchw.shape[0], -1, -1, -1)
        bent = F.grid_sample(cells_bchw, grid_bhw2, padding_mode="border", align_corners=False)
        return bent.permute(0, 2, 3, 1)


def line_of(side_px: int) -> Tensor:
    """The centres of a line's pixels in -1..1: (side,)."""
    return (torch.arange(side_px) + 0.5) * 2 / side_px - 1


def square_grid(side_px: int) -> Tensor:
    """The centres of a square's pixels in -1..1, x first: (1, side, side, 2)."""
    line = line_of(side_px)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1)[None]


def box_of(mask_bchw: Tensor, line: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Middle x, middle y and half the longest side of each mask's box, in -1..1 of its square.

    The box runs through the centres of the outermost pixels; that of an empty mask is a speck in
    the middle.

    Shapes: mask (B, 1, S, S) in 0..1, line (S,) of `line_of` -> three of (B,).
    """
    columns, rows = mask_bchw.amax((1, 2)) >= 0.5, mask_bchw.amax((1, 3)) >= 0.5
    far = torch.full_like(line, 2.0)[None]
    edges = [torch.where(is_in, line[None], far).amin(1) for is_in in (columns, rows)]
    edges += [-torch.where(is_in, -line[None], far).amin(1) for is_in in (columns, rows)]
    left, top, right, bottom = (edge.clamp(-1, 1) for edge in edges)
    half = torch.maximum(right - left, bottom - top) / 2
    return (left + right) / 2, (top + bottom) / 2, half.clamp(min=LEAST_HALF)


def _unit(outlines_bchw: Tensor) -> Tensor:
    """Outlines as vectors of length 1, their mean taken off."""
    flat = outlines_bchw.flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True), dim=1)
