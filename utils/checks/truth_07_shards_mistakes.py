"""Which mistakes lead to which wrong shard, gradient or weight of lab 07's sharded Adam."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.checks.truth_07_shards import Case, flat, padded, truth_P

Found = tuple[str, Tensor]

WHOLE = "state for all parameters: Adam would keep moments of what other ranks update as well"
EACH = "each weight is padded by itself: first one after another, then padding, at the end"
LOST = "the size of a shard is rounded down: the last values belong to nobody"
OFF = "shards off by the padding: all have S values, rank r's begins at r S, and zeros fill the end"
ORDER = "the weights come in another order: take them as given"
OTHER_RANK = "this is another rank's shard: rank r looks after the r-th"


def shard_mistake(case: Case, rank: int, got: Tensor, num_ranks: int) -> str:
    """Name what leads to this shard."""
    tensors = case.tensors(seed=0)
    all_P = padded(flat(tensors), num_ranks)
    if len(got) in (case.num_values, len(all_P)) and num_ranks > 1 and len(got) > 1:
        return WHOLE
    own = [padded(flat([each]), num_ranks).view(num_ranks, -1) for each in tensors]
    floor, front = case.num_values // num_ranks, torch.zeros(len(all_P) - case.num_values)
    backwards = padded(flat(tensors[::-1]), num_ranks)
    by_size = padded(flat(sorted(tensors, key=Tensor.numel, reverse=True)), num_ranks)
    in_memory = padded(torch.cat([_stored(each) for each in tensors]), num_ranks)
    found: list[Found] = [
        (EACH, torch.cat([each[rank] for each in own])),
        (LOST, all_P[rank * floor : (rank + 1) * floor]),
        (OFF, flat(tensors).tensor_split(num_ranks)[rank]),
        (OFF, torch.cat([front, flat(tensors)]).chunk(num_ranks)[rank]),
        ("flatten() reads a transposed weight row by row, as everybody sees it; its memory is in "
         "another order", in_memory.chunk(num_ranks)[rank]),
        (ORDER, backwards.chunk(num_ranks)[rank]),
        (ORDER, by_size.chunk(num_ranks)[rank]),
        *((OTHER_RANK, each) for each in all_P.chunk(num_ranks)),
        *((OTHER_RANK, _without_padding(all_P, k, case, num_ranks)) for k in range(num_ranks)),
    ]  # fmt: skip
    name = next((text for text, value in found if _equal(got, value)), "")
    return name or (OFF if len(got) < case.shard_values(num_ranks) else "")


def gradient_mistake(case: Case, step: int, rank: int, num_ranks: int, got: Tensor) -> str:
    """Name what leads to this gradient of the shard."""
    parts = [padded(flat(case.gradients(k)), num_ranks).chunk(num_ranks) for k in range(step + 1)]
    mine = parts[step][rank]
    whole_sum = torch.stack([each[rank] for each in parts]).sum(0)
    turned = padded(torch.cat([_stored(each) for each in case.gradients(step)]), num_ranks)
    found: list[Found] = [
        ("divided by world_size again: data parallelism has averaged them", mine / num_ranks),
        ("summed over ranks again: data parallelism has averaged them", mine * num_ranks),
        ("gradients of the steps before are still in it: replace the shard's gradient", whole_sum),
        ("it is the gradient of the first step: take it anew in each step", parts[0][rank]),
        ("flatten() reads a transposed gradient row by row, as it reads the weight",
         turned.chunk(num_ranks)[rank]),
        *(("this is the gradient of another rank's shard", each) for each in parts[step]),
    ]  # fmt: skip
    size = min(len(got), len(mine))
    return next((text for text, value in found if _equal(got[:size], value[:size])), "")


def weight_mistake(case: Case, num_steps: int, rank: int, num_ranks: int, got: Tensor) -> str:
    """Name what leads to these weights, though each rank's optimizer did the right thing."""
    true, start = truth_P(case, num_steps), flat(case.tensors(seed=0))
    wrong = ~torch.isclose(got, true, rtol=1e-4, atol=1e-6)
    size = case.shard_values(num_ranks)
    own = slice(rank * size, (rank + 1) * size)
    names = [flat([each]) for each in case.tensors(seed=0)]
    is_turned = torch.zeros(case.num_values, dtype=torch.bool)
    if case.transposed is not None:
        first = sum(case.sizes[: case.transposed])
        is_turned[first : first + len(names[case.transposed])] = True
    explanations = [
        ("the optimizer updates a copy, and its update is lost: gather the tensors that it has, "
         "and copy the result into the weights", _equal(got, start)),
        ("the shards are gathered before the optimizer steps: each step shows the one before",
         _equal(got, truth_P(case, num_steps - 1))),
        ("only this rank's shard is new: the other ranks' must be gathered",
         not wrong[own].any() and _equal(got[wrong], start[wrong])),
        ("reshape(-1) of a transposed weight is a copy: copy the part, in the weight's shape, "
         "into the weight", bool(wrong.any()) and _equal(got[wrong], start[wrong])
         and not wrong[~is_turned].any()),
        ("a transposed weight has its values at wrong places: view the part in its shape",
         not wrong[~is_turned].any()),
        ("the last values stay as they were: the last shard's rest, before the padding, counts",
         not wrong[: case.num_values // num_ranks * num_ranks].any()),
        ("all-zero weights agree on every rank, too", not got.any()),
        ("divided by world_size: each rank's values are final", _equal(got, true / num_ranks)),
        ("all the right values at wrong places: rank r's shard is the r-th of the flat tensor, "
         "and the weights take it in the order given",
         _equal(got.sort().values, true.sort().values)),
    ]  # fmt: skip
    return next((text for text, applies in explanations if applies), "")


def _stored(tensor: Tensor) -> Tensor:
    """Values in the order of memory."""
    return tensor.T.reshape(-1) if tensor.dim() == 2 else tensor.reshape(-1)


def _without_padding(all_P: Tensor, rank: int, case: Case, num_ranks: int) -> Tensor:
    size = case.shard_values(num_ranks)
    return all_P[rank * size : min((rank + 1) * size, case.num_values)]


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-6)
