"""The two collectives that torch renamed, under one name for every version of torch.

torch 2.13 warns when `all_gather_into_tensor` and `reduce_scatter_tensor` are called and offers
`all_gather_single` and `reduce_scatter_single` instead, with the same arguments; older versions
know only the old names.
"""

import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp, Work

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def all_gather(
    output: Tensor, input: Tensor, group: ProcessGroup | None = None, async_op: bool = False
) -> Work | None:
    """Fill `output` with every rank's `input`, one after the other in rank order.

    `output` has N times as many values as `input`. Returns a Work to wait for if `async_op`.
    """
    return _all_gather(output, input, group=group, async_op=async_op)


def reduce_scatter(
    output: Tensor,
    input: Tensor,
    op: ReduceOp = ReduceOp.SUM,
    group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:
    """Reduce all ranks' `input` and leave this rank's N-th part of it in `output`.

    `input` has N times as many values as `output`. Returns a Work to wait for if `async_op`.
    """
    return _reduce_scatter(output, input, op=op, group=group, async_op=async_op)
