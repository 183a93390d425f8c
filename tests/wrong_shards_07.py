"""Lab 07's wrong sharded Adams, each with the words that its check must answer with."""

from functools import partial

from tests.wrong_builders_07 import mutant

shards = partial(mutant, "07.2")

SIZES = "num_values, num_shard = sum(sizes), -(-sum(sizes) // world_size)"
FLOOR = "num_values, num_shard = sum(sizes) // world_size * world_size, sum(sizes) // world_size"
CAT = "torch.cat([tensor.detach().flatten() for tensor in tensors])"
CLONE = "[rank * num_shard : (rank + 1) * num_shard].clone()"
GATHER = "ring_all_gather(flat_P, shard_S, rank, world_size)"
COPY = "weight.data.copy_(part.view_as(weight))"
GRADIENT = "shard_S.grad = my_shard([weight.grad for weight in weights])"
MAKE = "optimizer = make_optimizer([shard_S])"
STEP = "optimizer.step()"
SPLIT = "zip(weights, flat_P[:num_values].split(sizes), strict=True)"
BY_SUM = """\
flat_P = torch.zeros(world_size * num_shard)
        flat_P[rank * num_shard : (rank + 1) * num_shard] = shard_S
        dist.all_reduce(flat_P)
"""
BROADCASTS = """\
for r, part in enumerate(flat_P[:num_values].tensor_split(world_size)):
            if r == rank:
                part.copy_(shard_S)
            dist.broadcast(part, r)
"""
EACH_PADDED = """\
        parts = []
        for tensor in tensors:
            own = -(-tensor.numel() // world_size)
            one_P = torch.zeros(world_size * own)
            one_P[: tensor.numel()] = tensor.detach().flatten()
            parts.append(one_P[rank * own : (rank + 1) * own])
        return torch.cat(parts)
"""
MY_SHARD = """\
        flat_P = torch.zeros(world_size * num_shard)
        flat_P[:num_values] = torch.cat([tensor.detach().flatten() for tensor in tensors])
        return flat_P[rank * num_shard : (rank + 1) * num_shard].clone()
"""
WHOLE = "whole_P = nn.Parameter(torch.cat([w.detach().flatten() for w in weights]))"
WHOLE_STEP = """\
        whole_P.grad = torch.cat([weight.grad.flatten() for weight in weights])
        optimizer.step()
        shard_S = whole_P.detach()[rank * num_shard : (rank + 1) * num_shard]
        shard_S = torch.cat([shard_S, torch.zeros(num_shard - len(shard_S))])
"""
STEPS = f"        {GRADIENT}\n        {STEP}\n"

SHARDS = [
    (shards(SIZES, FLOOR, CAT, CAT + "[:num_values]", SPLIT,
            "zip(weights, torch.cat([flat_P, torch.zeros(sum(sizes) - num_values)]).split(sizes), "
            "strict=True)"), "the last values belong to nobody"),
    (shards("flat_P[:num_values] =", "flat_P[-num_values:] =",
            "flat_P[:num_values].split", "flat_P[-num_values:].split"), "off by the padding"),
    (shards(f"flat_P{CLONE}", "flat_P[:num_values].tensor_split(world_size)[rank].clone()",
            GATHER, BROADCASTS), "off by the padding"),
    (shards(MY_SHARD, EACH_PADDED, "flat_P = torch.empty(world_size * num_shard)",
            "flat_P = torch.empty(world_size * len(shard_S))"), "each weight is padded by itself"),
    (shards(MAKE, f"{WHOLE}\n    optimizer = make_optimizer([whole_P])", STEPS, WHOLE_STEP),
     "state for all parameters"),
    (shards(MAKE, "optimizer = make_optimizer(weights)", GRADIENT, "pass"),
     "state for all parameters"),
    (shards("my_shard(weights)", "my_shard(weights[::-1])", "weight.grad for weight in weights",
            "weight.grad for weight in weights[::-1]", SPLIT,
            "zip(weights[::-1], flat_P[:num_values].split(sizes[::-1]), strict=True)"),
     "in another order"),
    (shards("my_shard(weights)", "my_shard(sorted(weights, key=lambda w: -w.numel()))"),
     "in another order"),
    (shards("[rank * num_shard : (rank + 1)", "[(rank + 1) % world_size * num_shard : "
            "((rank + 1) % world_size + 1)"), "another rank's shard"),
    (shards("tensor.detach().flatten()", "tensor.detach().T.flatten() if tensor.dim() == 2 "
            "else tensor.detach().flatten()"), "its memory is in another order"),
    (shards(STEP, f"{MAKE}; {STEP}"), "moments are lost"),
    (shards(GRADIENT, "pass"), "the shard has no gradient"),
    (shards("my_shard([weight.grad for", "my_shard([weight.grad / world_size for"),
     "divided by world_size again"),
    (shards(GRADIENT, "[dist.all_reduce(weight.grad) for weight in weights]; " + GRADIENT),
     "summed over ranks again"),
    (shards(GRADIENT, "new_S = my_shard([weight.grad for weight in weights])\n        "
            "shard_S.grad = new_S if shard_S.grad is None else shard_S.grad + new_S"),
     "gradients of the steps before"),
    (shards(GRADIENT, "shard_S.grad = shard_S.grad if shard_S.grad is not None else "
            "my_shard([weight.grad for weight in weights])"), "gradient of the first step"),
    (shards(GATHER, "ring_all_gather(flat_P, my_shard(weights), rank, world_size)"),
     "the optimizer updates a copy"),
    (shards(COPY, "weight = part.view_as(weight)"), "the optimizer updates a copy"),
    (shards(GRADIENT, "pass", STEP, f"before_S = shard_S.clone(); {GRADIENT}; {STEP}",
            GATHER, "ring_all_gather(flat_P, before_S, rank, world_size)"), "is lost"),
    (shards(STEP, "before_S = shard_S.clone()", GATHER, GATHER.replace("shard_S", "before_S") +
            f"; {STEP}"), "the optimizer updates a copy"),
    (shards(GATHER, "flat_P = torch.cat([flat_W(w) for w in weights] + [torch.zeros(world_size * "
            "num_shard - num_values)])\n        flat_P[rank * num_shard : (rank + 1) * num_shard] "
            "= shard_S", "    shard_S = my_shard",
            "    flat_W = lambda w: w.detach().flatten()\n    shard_S = my_shard"),
     "the other ranks' must be gathered"),
    (shards(COPY, "weight.data.reshape(-1).copy_(part)"), "of a transposed weight is a copy"),
    (shards(COPY, "weight.data = part.view(weight.shape[::-1]).T if weight.dim() == 2 else "
            "part.view_as(weight)"), "values at wrong places"),
    (shards(f"flat_P = torch.empty(world_size * num_shard)\n        {GATHER}", BY_SUM),
     "an all-reduce of weights sends each value twice"),
    (shards(GATHER, f"{GATHER}; {GATHER}"), "gathered twice"),
    (shards(".clone()", ""), "a view keeps the whole flat tensor alive"),
    (shards("    optimizer = make", "    spare = flat_P = torch.zeros(world_size * num_shard)\n"
            "    optimizer = make", "return step", "step.spare = spare\n    return step",
            "flat_P = torch.empty(world_size * num_shard)", "flat_P = step.spare"),
     "let nothing else refer"),
    (shards("zip(weights, flat_P[", "zip(range(len(weights)), flat_P[",
            COPY, "weights[weight] = part.view_as(weights[weight])"), "not into the list"),
    (shards(STEP, f"{STEP}\n        if rank * num_shard >= num_values:\n            return"),
     "every rank calls ring_all_gather once"),
    (shards("return step", "pass"), "without a return"),
    (shards(MAKE, "optimizer = make_optimizer(shard_S)"), "takes a list of tensors"),
    (shards(STEP, "pass"), "another number of updates"),
    (shards(STEP, f"{STEP}; {STEP}"), "optimizer.step() once in each"),
]  # fmt: skip
