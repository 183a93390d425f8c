"""Selective checkpointing: keep the results of chosen operations, run only the others again.

How it works: two dispatch modes share a store. The first one sees each operation of the first run,
below autograd, and keeps the results that a policy chooses. The second one sees the operations of
the run for backward in the same order, and hands the kept results back instead of computing them.
It is the pair that torch makes with `create_selective_checkpoint_contexts`.

Left out: keeping views (they cost nothing to make again), policies that look at arguments, and
policies that keep casts of weights: autocast's cache makes them in one run and not in the other.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from utils.techniques.checkpointing import Checkpoint, checkpoint_with
from utils.techniques.replay import ReplayState

Policy = Callable[[OpOverload], bool]  # True: keep this operation's result; asked once for each
aten = torch.ops.aten

MATRIX_PRODUCTS = frozenset({aten.mm.default, aten.addmm.default, aten.bmm.default,
                             aten.baddbmm.default})  # fmt: skip
FUSED_ATTENTION = frozenset(
    {
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_cudnn_attention.default,
    }
)


def keep_products(operation: OpOverload) -> bool:
    """Keep every matrix product and fused attention: nearly all FLOPs, some of the bytes."""
    return operation in MATRIX_PRODUCTS or operation in FUSED_ATTENTION


def checkpoint_keeping(policy: Policy) -> Checkpoint:
    """A checkpoint that keeps inputs and what `policy` chooses, and computes the rest again."""

    def checkpoint(function: Callable, *args: Any, **kwargs: Any) -> Any:
        store: Store = {}
        first, again = KeepChosen(policy, store), ReuseChosen(policy, store)
        return checkpoint_with(first, again, function, *args, **kwargs)

    return checkpoint


class _Kept:
    """A result, and what tells whether somebody changed it afterwards."""

    def __init__(self, result: Any, operation: OpOverload) -> None:
        self._result = tree_map_only(Tensor, _alias, result)
        self._versions = self._now()
        # A later dropout must draw the same numbers although this one will not draw again.
        draws = torch.Tag.nondeterministic_seeded in operation.tags
        self._random = ReplayState(self._tensors()) if draws else None

    def take(self) -> Any:
        if self._now() != self._versions:
            raise RuntimeError(
                "A result that a selective checkpoint keeps was changed in place afterwards: let "
                "the policy compute it again, or use the operation that makes a new tensor."
            )
        if self._random is not None:
            self._random.restore_random()
        return self._result

    def _tensors(self) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(self._result) if isinstance(leaf, Tensor)]

    def _now(self) -> list[int]:
        return [tensor._version for tensor in self._tensors()]


def _alias(tensor: Tensor) -> Tensor:
    """The same bytes without a graph, but with the count of changes that the tensor itself has.

    Below autograd, where a dispatch mode works, `detach` alone would start a new count.
    """
    with torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.ADInplaceOrView, False):
        return tensor.detach()


Store = dict[OpOverload, list[_Kept | None]]  # for each call of an operation; None: compute again


class _Chooser(TorchDispatchMode):
    def __init__(self, policy: Policy, store: Store) -> None:
        super().__init__()
        self.policy, self.store = policy, store

    @staticmethod
    def _makes_view(operation: OpOverload) -> bool:
        """Whether the result is an argument, changed in place or looked at in another way."""
        return any(result.alias_info for result in operation._schema.returns)


class KeepChosen(_Chooser):
    """Around the first run: put chosen results into the store."""

    def __torch_dispatch__(
        self, func: OpOverload, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run one operation, and keep its result if it is chosen."""
        result = func(*args, **(kwargs or {}))
        if not self._makes_view(func):
            kept = _Kept(result, func) if self.policy(func) else None
            self.store.setdefault(func, []).append(kept)
        return result


class ReuseChosen(_Chooser):
    """Around the run for backward: hand results back, each once, in the order they were made."""

    def __torch_dispatch__(
        self, func: OpOverload, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Hand back a kept result, or compute."""
        calls = self.store.get(func)
        kept = calls.pop(0) if calls else None
        return kept.take() if kept else func(*args, **(kwargs or {}))

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.store.clear()  # a further run, or one that ended early, must not mix up the order
