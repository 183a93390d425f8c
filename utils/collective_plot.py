"""A collective as a picture: what every rank held before, and what it holds afterwards.

How it works: each rank is a row of boxes, one for each piece of data. A box has one stripe for each
rank whose data is in it, in that rank's colour and with its number: after a broadcast all stripes
are the root's, after an all-reduce every box has all stripes. `run_collectives` takes the pieces
from a real run: rank r starts with powers of ten, so the digits of the result say what was added.

Left out: how the data travelled; the ledger and the timelines show that.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from utils.plots import OKABE_ITO, contrast_with_white

Pieces = Sequence[Sequence[set[int]]]  # pieces[rank][place] is the set of ranks summed in it
Held = list[list[set[int]]]


def run_collectives(rank: int, world_size: int) -> dict[str, tuple[list[set[int]], list[set[int]]]]:
    """Run six collectives on this rank: name -> (its pieces before, its pieces after)."""
    mine = torch.full((world_size,), 10 ** rank)  # one digit a rank: sums stay readable
    results = {}
    for name, (starts_with, run) in COLLECTIVES.items():
        before = starts_with(mine, rank)
        after = run(before.clone(), rank, world_size)
        results[name] = (_sources(before, world_size), _sources(after, world_size))
    return results


def _broadcast(pieces: Tensor, rank: int, world_size: int) -> Tensor:
    dist.broadcast(pieces, src=0)
    return pieces


def _reduce(pieces: Tensor, rank: int, world_size: int) -> Tensor:
    dist.reduce(pieces, dst=0)
    return pieces if rank == 0 else torch.zeros_like(pieces)  # elsewhere the result is undefined


def _all_reduce(pieces: Tensor, rank: int, world_size: int) -> Tensor:
    dist.all_reduce(pieces)
    return pieces


def _reduce_scatter(pieces: Tensor, rank: int, world_size: int) -> Tensor:
    part, result = torch.empty_like(pieces[:1]), torch.zeros_like(pieces)
    dist.reduce_scatter(part, list(pieces.split(1)))
    result[rank] = part
    return result


def _all_gather(pieces: Tensor, rank: int, world_size: int) -> Tensor:
    parts = [torch.empty_like(pieces[:1]) for _ in range(world_size)]
    dist.all_gather(parts, pieces[rank : rank + 1].clone())
    return torch.cat(parts)


def _all_to_all(pieces: Tensor, rank: int, world_size: int) -> Tensor:
    result = torch.empty_like(pieces)
    dist.all_to_all_single(result, pieces)
    return result


def _all_of_it(mine: Tensor, rank: int) -> Tensor:
    return mine


def _root_only(mine: Tensor, rank: int) -> Tensor:
    return mine if rank == 0 else torch.zeros_like(mine)


def _own_place(mine: Tensor, rank: int) -> Tensor:
    alone = torch.zeros_like(mine)
    alone[rank] = mine[rank]
    return alone


Start = Callable[[Tensor, int], Tensor]
Run = Callable[[Tensor, int, int], Tensor]
COLLECTIVES: dict[str, tuple[Start, Run]] = {
    "broadcast": (_root_only, _broadcast),
    "reduce": (_all_of_it, _reduce),
    "all-reduce": (_all_of_it, _all_reduce),
    "reduce-scatter": (_all_of_it, _reduce_scatter),
    "all-gather": (_own_place, _all_gather),
    "all-to-all": (_all_of_it, _all_to_all),
}


def _sources(pieces: Tensor, world_size: int) -> list[set[int]]:
    """Which ranks' powers of ten are in each piece."""
    return [
        {rank for rank in range(world_size) if value // 10**rank % 10} for value in pieces.tolist()
    ]


def draw_collectives(figure: Figure, by_rank: Sequence[dict[str, tuple]]) -> str:
    """Draw what `run_collectives` returned on each rank: before on the left, after on the right."""
    names, world_size = list(by_rank[0]), len(by_rank)
    grid = figure.subplots(2, (len(names) + 1) // 2)
    for axes, name in zip(grid.flat, names, strict=True):
        before, after = ([results[name][side] for results in by_rank] for side in (0, 1))
        _draw_pieces(axes, before, 0.0)
        _draw_pieces(axes, after, world_size + 1.5)
        axes.annotate("", (world_size + 1.2, world_size / 2), (world_size + 0.2, world_size / 2),
                      arrowprops={"arrowstyle": "->"})  # fmt: skip
        axes.set(title=name, xlim=(-0.1, 2 * world_size + 1.6), ylim=(world_size, -0.1))
        axes.set_yticks([r + 0.45 for r in range(world_size)],
                        [f"rank {r}" for r in range(world_size)])  # fmt: skip
        axes.set_xticks([])
        axes.set_aspect("equal")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return (
        f"Six collectives on {world_size} ranks, before and after: a stripe in a rank's colour and "
        "with its number says that the rank's data is in the piece, and an empty box holds nothing."
    )


def _draw_pieces(axes: Axes, pieces: Pieces, left: float) -> None:
    for rank, row in enumerate(pieces):
        for place, sources in enumerate(row):
            axes.add_patch(Rectangle((left + place, rank), 0.9, 0.9, fill=False, ec="#888888"))
            width = 0.9 / max(1, len(sources))
            for index, source in enumerate(sorted(sources)):
                _draw_stripe(axes, left + place + index * width, rank, width, source)


def _draw_stripe(axes: Axes, x: float, y: float, width: float, source: int) -> None:
    colour = OKABE_ITO[source % len(OKABE_ITO)]
    axes.add_patch(Rectangle((x, y), width, 0.9, color=colour))
    ink = "white" if contrast_with_white(colour) >= 4.5 else "black"
    axes.text(x + width / 2, y + 0.45, str(source), ha="center", va="center", color=ink, fontsize=8)
