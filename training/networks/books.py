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

Lines = tuple[Tensor, Tensor]
"""A grid's columns x (B or 1, w) and rows y (B or 1, h), in -1..1 of what it is laid over."""

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
        is_other = torch.cat([self.labels] * 2)[None] != label_b[:, None]
        with torch.autocast(noise_bc.device.type, enabled=False):  # half the digits are too few
            liking = noise_bc.float() @ self.directions.T * FIRMNESS
            if scale_b is not None:
                octaves = torch.cat([self.scales] * 2)[None] - scale_b[:, None].float()
                liking = liking - SIZE_FIT * octaves.square()
            if outline_bchw is not None:
                known = torch.cat([self.outlines, self.outlines.flip(3)])
                liking = liking + FIT * _unit(outline_bchw.float()) @ _unit(known).T
            return (liking - NEVER * is_other.float()).softmax(1)

    def open(self, share_bp: Tensor, noise_bc: Tensor, lines: Lines) -> Tensor:
        """What stands at the places of a grid; beyond a page its rim goes on.

        Each page is read once: what is mirrored is the mixture of those that are to be.

        Shapes: share (B, 2p) of each page, noise (B, WARP_NOISE), lines of h rows and w columns
                -> (B, c, h, w).
        """
        pages, channels, side_px, _ = self.pages.shape
        halves = share_bp.reshape(-1, pages) @ self.pages.reshape(pages, -1)
        as_they_are, mirrored = halves.view(-1, 2, channels, side_px, side_px).unbind(1)
        rim = 1 - 1 / side_px  # ONNX Runtime is slow where it must find the rim by itself
        grid_bhw2 = self.warp(lines, noise_bc).clamp(-rim, rim)
        return F.grid_sample(as_they_are + mirrored.flip(3), grid_bhw2, align_corners=False)


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

    def forward(self, lines: Lines, noise_bc: Tensor) -> Tensor:
        """Lines of h rows and w columns, noise (B, WARP_NOISE) -> where to look, (B, h, w, 2).

        All moves are sums of products of what only a column and what only a row tells: one matrix
        product over y itself, 1, and the weights of the cells' rows.
        """
        x_bw, y_bh = (line.float() for line in lines)
        moves, bends = torch.split(noise_bc.float(), [4, 2 * BEND_CELLS**2], dim=1)
        turn_bh2 = torch.stack([y_bh, torch.ones_like(y_bh)], -1)
        rows_bhk = torch.cat([turn_bh2, _cell_weights(y_bh)], -1)
        with torch.autocast(noise_bc.device.type, enabled=False):  # half the digits are too few
            columns_bkwc = torch.cat([self._turn(x_bw, moves), self._bend(x_bw, bends)], 1)
            return torch.unflatten(rows_bhk @ columns_bkwc.flatten(2), 2, (-1, 2))

    def _turn(self, x_bw: Tensor, moves_bc: Tensor) -> Tensor:
        """Turned, sheared and stretched: what y is taken by, and what is added, (B, 2, w, 2)."""
        turn, shear, wide, high = (moves_bc * self.reach)[:, :, None].unbind(1)
        cosine, sine, wide, high = turn.cos(), turn.sin(), wide.exp(), high.exp()
        of_y = torch.stack([wide * (shear - sine), high * cosine], -1).expand(-1, x_bw.shape[1], -1)
        of_x = torch.stack([wide * cosine * x_bw, high * sine * x_bw], -1)
        return torch.stack([of_y, of_x], 1)

    def _bend(self, x_bw: Tensor, bends_bc: Tensor) -> Tensor:
        """A smooth field of moves, from a few cells: for each of their rows, (B, cells, w, 2)."""
        cells_bckk = self.bend * bends_bc.view(-1, 2, BEND_CELLS, BEND_CELLS)
        weights_bkw = _cell_weights(x_bw).transpose(1, 2)
        return (cells_bckk @ weights_bkw[:, None]).permute(0, 2, 3, 1)


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


def _cell_weights(line_bn: Tensor) -> Tensor:
    """How much of each cell there is at a line's places, linear between centres: (B, n, cells)."""
    places_bn = ((line_bn + 1) * (BEND_CELLS / 2) - 0.5).clamp(0, BEND_CELLS - 1)
    cells = torch.arange(BEND_CELLS, device=line_bn.device)
    return (1 - (places_bn[:, :, None] - cells).abs()).clamp(min=0)
