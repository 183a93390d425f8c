"""Lab 07's wrong clippings, each with the words that its check must answer with."""

from functools import partial

from tests.wrong_builders_07 import mutant

clip = partial(mutant, "07.4")

REDUCE = "dist.all_reduce(square)"
NORM = "norm = square.sqrt().item() / num_micro"
MINE = "square += shard_S[:num_mine].double().square().sum()"
WHOLE = "square += sum(gradient.double().square().sum() for gradient in whole)"
IF_ZERO = "if rank == 0:"
FACTOR = "factor = min(1.0, max_norm / norm if norm else 1.0) / num_micro"
SCALE = "gradient *= factor"
GATHERED = """\
squares = []
    for shard_S, size in zip(shards, sizes, strict=True):
        parts = [torch.empty_like(shard_S) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, shard_S)
        squares.append(torch.cat(parts)[:size].double().square().sum())
    square = sum(squares) + sum(gradient.double().square().sum() for gradient in whole)
"""

CLIPS = [
    (clip(REDUCE, "pass"), "the norm of the local shard only"),
    (clip(REDUCE, "square = square.sqrt()\n    dist.all_reduce(square)\n    square = square**2"),
     "a sum of norms"),
    (clip(MINE, "one = shard_S[:num_mine].double().square().sum()\n        dist.all_reduce(one)\n"
          "        square += one.sqrt()", REDUCE, "square = square**2", WHOLE, "pass",
          NORM, f"{NORM} + sum(gradient.norm().item() for gradient in whole) / num_micro"),
     "a sum of norms"),
    (clip(NORM, "norm = square.item() / num_micro**2"), "the root is missing"),
    (clip("shard_S[:num_mine]", "shard_S"), "the padding is counted"),
    (clip("shard_S[:num_mine]", "shard_S.nan_to_num()"), "the padding is counted"),
    (clip(IF_ZERO, "if True:"), "counted by each of them: it counts once"),
    (clip("shard_S[:num_mine]", "shard_S", IF_ZERO, "if True:"),
     "the padding is counted, and what every rank"),
    (clip(WHOLE, "pass"), "what every rank has whole is left out"),
    (clip(NORM, "norm = square.sqrt().item()"), "clipped before averaging"),
    (clip(NORM, "norm = square.sqrt().item()", "return norm", "return norm / num_micro"),
     "clipped before averaging"),
    (clip(REDUCE, f"{REDUCE}; square /= 3"), "squares are averaged"),
    (clip(REDUCE, "dist.all_reduce(square, op=dist.ReduceOp.MAX)"), "of all ranks belong"),
    (clip("return norm", "return min(norm, max_norm)"), "the norm before clipping"),
    (clip(FACTOR, "factor = max_norm / norm / num_micro if norm else 1.0"),
     "only scale down"),
    (clip(FACTOR, "factor = 1 / num_micro"), "not scaled down"),
    (clip(FACTOR, "factor = min(1.0, max_norm / norm if norm else 1.0)"),
     "the mean is asked"),
    (clip(FACTOR, f"{FACTOR} / num_micro"), "or divided by num_micro twice"),
    (clip(FACTOR, f"{FACTOR}\n    for each in shards:\n        each *= factor * num_micro"),
     "scaled twice"),
    (clip(FACTOR, f"{FACTOR} / 3"), "they hold means over ranks"),
    (clip(SCALE, "gradient = gradient * factor"), "scaled in place"),
    (clip("in (*shards, *whole)", "in shards"), "scaled in place, or not at all"),
    (clip(SCALE, "gradient *= 0"), "all-zero gradients agree"),
    (clip("[:num_mine].double()", "[:num_mine]"), "squares in fp16 overflow"),
    (clip(SCALE, "gradient *= factor if norm else float('nan')"), "a norm of 0 is divided by"),
    (clip(MINE, "one = shard_S[:num_mine].double().square().sum()\n        dist.all_reduce(one)\n"
          "        square += one if rank == 0 else 0"), "one message per tensor"),
    (clip(REDUCE, GATHERED), "the gradients themselves are sent"),
    (clip("return norm", "return torch.tensor(norm)"), "with .item()"),
    (clip(REDUCE, f"if not num_mine:\n        return 0.0\n    {REDUCE}"), "also from one whose"),
    (clip("return norm", "pass"), "without a return"),
]  # fmt: skip
