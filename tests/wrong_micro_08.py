"""Lab 08's wrong micro-batches, each with the words that its check must answer with."""

from functools import partial

from tests.wrong_builders_08 import mutant

micro = partial(mutant, "08.3")

GATHER = "    for unit in units:\n        unit.gather()\n"
RUN = "        loss().backward()\n"
EACH = "        for unit in units:\n            unit.gather()\n        loss().backward()\n"
ADD = "                total += parameter.grad\n                parameter.grad = None\n"
FREE = "        unit.free()\n"
REDUCE = "        unit.reduce([total / len(losses) for total in totals])\n"
FINISH = """\
    for unit, totals in zip(units, sums, strict=True):
        unit.free()
        unit.reduce([total / len(losses) for total in totals])
"""
REDUCE_EACH = """\
        loss().backward()
        for unit in units:
            unit.reduce([p.grad / len(losses) for p in unit.parameters])
            for p in unit.parameters:
                p.grad = None
"""
NO_SUM = """\
        for unit, totals in zip(units, sums, strict=True):
            for parameter, total in zip(unit.parameters, totals, strict=True):
                total += parameter.grad
                parameter.grad = None
"""
ONLY_FREE = "    for unit in units:\n        unit.free()\n"
LIST = "                total.append(parameter.grad)\n                parameter.grad = None\n"
CLEAR_FIRST = """\
        for unit in units:
            for parameter in unit.parameters:
                parameter.grad = None
        loss().backward()
"""
STEP = "    optimizer.step()\n"
ZERO = "    optimizer.zero_grad()\n"

MICRO = [
    (micro(GATHER, "", RUN, EACH, NO_SUM, NO_SUM + "        for unit in units:\n"
           "            unit.free()\n"), "a gather in every micro-batch"),
    (micro(GATHER, "", RUN, EACH, NO_SUM, NO_SUM + "        for unit in units[1:]:\n"
           "            unit.free()\n"), "each unit once a step is enough"),
    (micro(RUN, REDUCE_EACH, NO_SUM, "", FINISH, ONLY_FREE), "a reduce in every micro-batch"),
    (micro(GATHER, "", RUN, EACH + "        for unit in units:\n            unit.free()\n"),
     "a gather in every micro-batch"),
    (micro(FREE, ""), "stale weights: what was gathered before the update"),
    (micro(FREE, "", STEP, "    optimizer.step()\n" + ONLY_FREE), "free the weights before"),
    (micro("total += parameter.grad", "total.copy_(parameter.grad)"),
     "only the last micro-batch counts"),
    (micro(RUN, RUN.replace("loss()", "(loss() / len(losses))")), "taken twice"),
    (micro("total / len(losses)", "total / len(losses) ** 2"), "taken twice"),
    (micro("total / len(losses)", "total"), "summed over micro-batches, not averaged"),
    (micro("total / len(losses)", "total / len(losses) / dist.get_world_size()"),
     "divided by the number of ranks again"),
    (micro(NO_SUM, "", FINISH, FINISH.replace("total / len(losses) for total in totals",
           "p.grad.float() / len(losses) for p in unit.parameters") + "    for unit in units:\n"
           "        for p in unit.parameters:\n            p.grad = None\n"), "added up in bf16"),
    (micro("torch.zeros(p.shape)", "torch.zeros_like(p)"), "added up in bf16"),
    (micro("                parameter.grad = None\n", ""), "to a sum that holds it already"),
    (micro("losses:\n", "losses[:1]:\n"), "only the first micro-batch counts"),
    (micro(REDUCE, "        unit.reduce([0 * total for total in totals])\n"), "all-zero gradients"),
    (micro(GATHER, ""), "weights without values"),
    (micro(REDUCE, ""), "has no gradient when the optimizer begins"),
    (micro(STEP, ""), "the optimizer was not called"),
    (micro(RUN, RUN + "    " + STEP), "call optimizer.step() once"),
    (micro(ZERO, ""), "gradients of the step before"),
    (micro(RUN, CLEAR_FIRST, ADD, "                total += parameter.grad\n"),
     "gradients are left behind"),
    (micro("[torch.zeros(p.shape) for p in", "[[] for p in", ADD, LIST, "total / len(losses)",
           "sum(g.float() for g in total) / len(losses)"),
     "not the gradients of all micro-batches"),
    (micro(FINISH, FINISH.replace("        unit.free()\n", "") + ONLY_FREE, REDUCE, REDUCE * 2,
           "total / len(losses)", "total / len(losses) / 2"), "too many reductions"),
]  # fmt: skip
