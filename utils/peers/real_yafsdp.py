"""The real YaFSDP (github.com/yandex/YaFSDP), wherever it can be imported.

How it works: its `ya_fsdp.fully_shard` shards modules in place. Three things make it run this
course's GPT on processors. Its groups must be modules that are called, and our GPT reads the
position embedding's weight without calling it: `_Positions` calls it. The final norm and the output
layer are one group. And gloo's gather into a buffer raises the version counter by which autograd
tells changed tensors, which NCCL's does not: the counter is kept. Nothing of YaFSDP is in this
repository; the README says how to install it.

Left out: its 2024 class `YaFSDP`, which needs CUDA; sums of 16-bit gradients in fp32, which need a
private library.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from utils.peers import MakeSystem, TrainingJob, clip_and_update, loss_of

TRIED_COMMIT = "669fc36"


def yafsdp_problem() -> str | None:
    """Why the real YaFSDP can't run here, in one sentence; None when it can."""
    if importlib.util.find_spec("ya_fsdp") is None:
        return (
            "YaFSDP is not installed (it is in no package index; the README says how to get it): "
            "what follows shows a recorded run instead."
        )
    return None


class _Positions(nn.Module):
    """A position embedding whose `weight` is what calling it returns, so that hooks run."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    @property
    def weight(self) -> Tensor:
        """weight_TD, gathered by the hooks of the embedding's group."""
        return self.embedding(torch.arange(self.embedding.num_embeddings))


class RealYaFsdp:
    """`ya_fsdp.fully_shard` on the course's GPT: embeddings, each block and the head are groups."""

    def __init__(
        self, model: nn.Module, rank: int, world_size: int, job: TrainingJob,
        reshard_after_forward: bool = True,
    ) -> None:  # fmt: skip
        ya_fsdp = importlib.import_module("ya_fsdp")
        _keep_version_counters()
        self.model, self.job = model, job
        model.position_embedding = _Positions(model.position_embedding)
        self._names = [name for name, _ in model.named_parameters()]
        low = torch.bfloat16 if job.low_precision else torch.float32
        options = dict(
            mesh=init_device_mesh("cpu", (world_size,)),
            mp_policy=ya_fsdp.MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32),
            reshard_after_forward=reshard_after_forward,
        )
        ya_fsdp.fully_shard(model.position_embedding.embedding, **options)
        ya_fsdp.fully_shard(model.token_embedding, **options)
        for block in model.blocks:
            ya_fsdp.fully_shard(block, **options)
        ya_fsdp.fully_shard([model.final_norm, model.output], **options)
        ya_fsdp.fully_shard(model, **options)
        # Its tensors know no scalar lerp, which the plain loop of AdamW uses.
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=job.learning_rate, foreach=True
        )

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor, is_last: bool) -> Tensor:
        """One micro-batch."""
        loss = loss_of(self.model, tokens_BT, targets_BT)
        (loss / self.job.num_micro_batches).backward()
        return loss

    def step(self) -> None:
        """Clip if the job says so, and update."""
        clip_and_update(self.model, self.optimizer, self.job.max_norm)

    @torch.no_grad()
    def whole_parameters(self) -> list[Tensor]:
        """Every parameter, put together from all ranks' parts."""
        whole = dict(self.model.named_parameters())
        return [_whole(whole[name]).float() for name in self._names]

    def owned(self) -> dict[str, list[Any]]:
        """This rank's parts, the buffers that groups share, and Adam's state."""
        parameters = list(self.model.parameters())
        states = self.optimizer.state.values()
        return {
            "parameters": [_local(each) for each in parameters] + self._buffers("data_buffer_ctx"),
            "gradients": [_local(each.grad) for each in parameters if each.grad is not None]
            + self._buffers("grad_buffer_ctx"),
            "optimizer state": [_local(each) for state in states for each in state.values()],
        }

    def _groups(self) -> list[Any]:
        """Its parameter groups, which hold the buffers; the names are private and may go."""
        modules = self.model.modules()
        states = [each._get_fsdp_state() for each in modules if hasattr(each, "_get_fsdp_state")]
        found = [getattr(state, "_fsdp_param_group", None) for state in states]
        return list(dict.fromkeys(each for each in found if each is not None))

    def _buffers(self, name: str) -> list[Tensor]:
        contexts = [getattr(group, name, None) for group in self._groups()]
        return [each for context in contexts if context for each in context.buffers.values()]


def _local(tensor: Tensor) -> Tensor:
    return getattr(tensor, "_local_tensor", tensor)  # its to_local() is not written for all of them


def _whole(tensor: Tensor) -> Tensor:
    """All ranks' parts in rank order; gloo gathers only parts of one size, so they are padded."""
    if _local(tensor) is tensor:
        return tensor
    part, world_size = _local(tensor).flatten(), dist.get_world_size()
    size = torch.tensor([part.numel()])
    sizes = [torch.empty_like(size) for _ in range(world_size)]
    dist.all_gather(sizes, size)
    padded = part.new_zeros(max(each.item() for each in sizes))
    padded[: part.numel()] = part
    parts = [torch.empty_like(padded) for _ in range(world_size)]
    dist.all_gather(parts, padded)
    cut = [each[: n.item()] for each, n in zip(parts, sizes, strict=True)]
    return torch.cat(cut).view(tensor.shape)


def _keep_version_counters() -> None:
    """gloo writes a gather's result in place, which autograd counts as a change: keep its count."""
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*_tensor` is deprecated")
    groups = importlib.import_module("ya_fsdp._param_group")
    if dist.get_backend() != "gloo" or hasattr(groups.all_gather, "plain"):
        return
    plain = groups.all_gather

    def all_gather(
        group: Any, params: Any, sharded: Any, inp: Any, out: Tensor, *a: Any, **k: Any
    ) -> Any:
        with torch.autograd._unsafe_preserve_version_counter(out):
            return plain(group, params, sharded, inp, out, *a, **k)

    all_gather.plain = plain
    groups.all_gather = all_gather


def real_yafsdp_system(**options: Any) -> MakeSystem:
    """Makes the real YaFSDP with these options of `RealYaFsdp`."""
    return partial(RealYaFsdp, **options)
