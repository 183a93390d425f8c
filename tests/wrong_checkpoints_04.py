"""Wrong answers to exercise 04.2, made from switches: each is one mistake that learners make."""

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from tests.wrong_builders_04 import right


def real(
    *, detach="all", grad=True, replay=True, restore=True, first_keywords=True,
    second_keywords=True, by_name=True, inside="grad", inputs=True, weights=True, num_second=1,
    num_first=1, keep="nothing", wrap=None, through=True, scale=1.0,
):
    """The solution of 04.2 with one mistake."""

    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, runs, num_values, *both):
            values = both[:num_values]
            ctx.runs, ctx.weights = runs, both[num_values:]
            ctx.replay = right["make_replay"]() if replay else nullcontext
            ctx.state = torch.get_rng_state()
            ctx.others = [None if isinstance(v, Tensor) else v for v in values]
            ctx.kept = [v.clone() for v in values if isinstance(v, Tensor) and keep == "copies"]
            ctx.save_for_backward(*[v if isinstance(v, Tensor) else None for v in values])
            for _ in range(num_first):
                with torch.set_grad_enabled(keep in ("graph", "everything")):
                    again = [v.detach().requires_grad_(v.requires_grad)
                             if isinstance(v, Tensor) else v for v in values]
                    results = runs[0](*again)
            if keep in ("graph", "everything"):
                ctx.kept = again, results
                detached = results if isinstance(results, Tensor) else [r.detach() for r in results]
                return detached.detach() if isinstance(results, Tensor) else tuple(detached)
            if keep == "results":
                ctx.kept = results
            return results

        @staticmethod
        def backward(ctx, *gradients):
            needed = ctx.needs_input_grad[2:]
            values = [
                v if t is None else t if detach == "none" or (detach == "leaves" and t.grad_fn)
                else t.detach().requires_grad_(n)
                for t, v, n in zip(ctx.saved_tensors, ctx.others, needed, strict=False)
            ]
            if keep == "everything":
                values, results = ctx.kept
            else:
                again = ctx.replay() if restore else nullcontext()
                with again, torch.enable_grad() if grad else nullcontext():
                    if not restore:
                        torch.set_rng_state(ctx.state)
                    for _ in range(num_second):
                        results = ctx.runs[1](*values)
                        if num_second > 1:
                            torch.set_rng_state(ctx.state)
            results = results if isinstance(results, tuple) else (results,)
            pairs = zip(results, gradients, strict=True)
            results, gradients = zip(*[(r, g * scale) for r, g in pairs if r.requires_grad],
                                     strict=True)
            if inside == "backward":
                torch.autograd.backward(results, gradients)
                return None, None, *(
                    v.grad if isinstance(v, Tensor) and n and v.is_leaf else None
                    for v, n in zip((*values, *ctx.weights), needed, strict=True)
                )
            wanted = [t for t, n in zip((*values, *ctx.weights), needed, strict=True) if n]
            found = iter(torch.autograd.grad(results, wanted, gradients, allow_unused=True))
            out = [next(found) if n else None for n in needed]
            if not inputs:
                out[: len(values)] = [None] * len(values)
            return None, None, *out

    def checkpoint_module(module, *args, **kwargs):
        names = list(kwargs)

        def run(*values, use_keywords=True):
            named = dict(zip(names, values[len(args) :], strict=True)) if by_name else kwargs
            return module(*values[: len(args)], **(named if use_keywords else {}))

        values = (*args, *kwargs.values()) if by_name else args
        runs = [partial(run, use_keywords=use) for use in (first_keywords, second_keywords)]
        if not through:
            with torch.no_grad():
                return run(*values)
        result = Bad.apply(runs, len(values), *values, *(module.parameters() if weights else ()))
        return wrap(result) if wrap else result

    return checkpoint_module
