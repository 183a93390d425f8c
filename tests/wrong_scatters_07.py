"""Lab 07's wrong leaving gradients, each with the words that its check must answer with."""

from functools import partial

from tests.wrong_builders_07 import mutant

leave = partial(mutant, "07.3")

LOOP = """\
        finished.update(parameters)
        while waiting and waiting[0][0] in finished:
            parameter, shard_S = waiting.pop(0)
"""
AT_ONCE = """\
        mine = [pair for pair in waiting if any(pair[0] is each for each in parameters)]
        for parameter, shard_S in mine:
            waiting[:] = [pair for pair in waiting if pair[0] is not parameter]
"""
REGISTER = "        parameter.register_post_accumulate_grad_hook(on_gradients)\n"
SCATTER = "            scatter(mean_S, flat_P)\n"
ADD = "shard_S += mean_S"
FREE = "parameter.grad = None"
FLAT = "torch.zeros(world_size * shard_S.numel())"
ALL_REDUCE = """\
            dist.all_reduce(flat_P)
            mean_S = flat_P.chunk(world_size)[dist.get_rank()]
"""
BOTH = """\
            total_P = flat_P.clone()
            dist.all_reduce(total_P)
            scatter(mean_S, flat_P)
"""
FINISH = "        on_gradients(*order)\n"
LEFT_OUT = "        on_gradients(*(p for p in order if p.grad is not None))\n"

SCATTERS = [
    (leave(" / world_size\n", "\n"), "summed, not averaged"),
    (leave(ADD, "shard_S += mean_S / world_size"), "divided by world_size twice"),
    (leave(ADD, "shard_S.copy_(mean_S)"), "only the last micro-batch counts"),
    (leave(ADD, "shard_S = shard_S + mean_S"), "nothing has been added to the shard"),
    (leave(ADD, "shard_S += flat_P[: shard_S.numel()]"), "Likely mistake"),
    (leave(ADD, "shard_S += flat_P.chunk(world_size)[dist.get_rank()]"), "nothing of the other"),
    (leave("parameter.grad.flatten() / w", "parameter.grad.T.flatten() / w"), "transposed"),
    (leave(REGISTER, "        pass\n"), "everything is sent after backward"),
    (leave("        finished.update(parameters)\n", "",
           "            shard_S += mean_S\n",
           "            shard_S += mean_S\n        finished.update(parameters)\n",
           "        on_gradients(*order)", "        on_gradients(*order)\n        on_gradients()"),
     "the latest gradient included"),
    (leave(FREE, "pass"), "the gradient is still there"),
    (leave(FREE, "parameter.kept = parameter.grad\n            " + FREE), "kept beside the shard"),
    (leave(FREE, FREE + "\n            kept.append(flat_P)",
           "finished.clear()", "finished.clear()\n        kept.clear()",
           "    def on_gradients", "    kept = []\n\n    def on_gradients"),
     "kept beside the shard"),
    (leave(ADD, "shard_S.whole = flat_P\n            shard_S += mean_S"), "kept beside the shard"),
    (leave(SCATTER, ALL_REDUCE), "an all-reduce sends twice the bytes"),
    (leave(SCATTER, BOTH), "an all-reduce sends twice the bytes"),
    (leave(LOOP, AT_ONCE), "in the order in which its gradients arrive"),
    (leave("requires_grad][::-1]", "requires_grad]", "shards[::-1]", "shards"),
     "in another order"),
    (leave(FINISH, LEFT_OUT), "finish() sends zeros in its place"),
    (leave(FLAT, "torch.zeros(parameter.numel())"), "pad each gradient with zeros"),
    (leave(SCATTER, "            scatter(shard_S, flat_P)\n            mean_S.zero_()\n"),
     "only the last micro-batch counts"),
    (leave(SCATTER, SCATTER + SCATTER), "registered once"),
    (leave("        waiting.extend(zip(order, shards[::-1], strict=True))\n", ""),
     "nothing was sent by scatter"),
    (leave("        finished.clear()\n", ""), "Likely mistake"),
    (leave("shards[::-1]", "[s.clone() for s in shards[::-1]]"), "nothing has been added"),
    (leave("return finish", "pass"), "without a return"),
    (leave("return finish", "return finish()"), "Likely mistake"),
]  # fmt: skip
