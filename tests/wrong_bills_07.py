"""Lab 07's wrong bills, each with the words that its check must answer with."""

from functools import partial

from tests.wrong_builders_07 import mutant, right

bill = partial(mutant, "07.1")
zero_bill = right["zero_bill"]

SHARD = "-(-sum(sizes) // world_size)"
MESSAGES = "{1: 2, 2: num_micro + 1, 3: 3 * num_micro}[stage]"
WEIGHTS = "shard if stage == 3 else world_size * shard"
GRADIENTS = "sum(sizes) if stage == 1 else shard"
STATE = "8 if weight_bytes == 4 else 12"


def one_flat_model(units, *more):
    return zero_bill([[size for sizes in units for size in sizes]], *more)


def by_parameter(units, *more):
    return zero_bill([[size] for sizes in units for size in sizes], *more)


def all_ranks(units, stage, world_size, *more):
    held, sent = zero_bill(units, stage, world_size, *more)
    return world_size * held, sent


def sent_by_all(units, stage, world_size, *more):
    held, sent = zero_bill(units, stage, world_size, *more)
    return held, world_size * sent


BILLS = [
    (bill(SHARD, "sum(sizes) / world_size", "world_size * shard", "sum(sizes)"), "no padding"),
    (bill(SHARD, "sum(sizes) // world_size"), "rounded down"),
    (bill(SHARD, "sum(sizes) // world_size", "else world_size * shard", "else sum(sizes)"),
     "rounded down"),
    (one_flat_model, "padded once for the whole model"),
    (by_parameter, "each parameter is padded by itself"),
    (bill("(world_size - 1) * shard", "world_size * shard"), "(N - 1)/N is forgotten"),
    (bill("(world_size - 1) * shard", "shard"), "one slice of N is sent"),
    (bill(GRADIENTS, "shard"), "stage 1 keeps the gradients whole"),
    (bill(GRADIENTS, "world_size * shard if stage == 1 else shard"),
     "padding comes with the flat tensor only"),
    (bill(WEIGHTS, "shard if stage == 3 else sum(sizes)"), "their padding is held as well"),
    (bill(GRADIENTS, "sum(sizes) if stage < 3 else shard"), "stage 2 keeps a shard of the grad"),
    (bill(WEIGHTS, "shard if stage > 1 else world_size * shard"), "stage 2 keeps the weights"),
    (bill(WEIGHTS, "world_size * shard"), "stage 3 keeps shards of the weights"),
    (bill("state_bytes * shard", "state_bytes * shard * world_size"), "state is not divided by N"),
    (bill(STATE, "8"), "two fp32 moments and the fp32 master"),
    (bill(STATE, "12"), "there is no second copy"),
    (bill(STATE, "4 if weight_bytes == 4 else 8"), "two moments for each value"),
    (bill("(weights + gradients)", "weights"), "the gradients are missing"),
    (bill("+ state_bytes * shard", "+ 8 * shard + (weight_bytes == 2) * 4 * world_size * shard"),
     "the master is sharded like the moments"),
    (all_ranks, "the bytes of all ranks together"),
    (sent_by_all, "the bytes of all ranks together"),
    (bill("num_messages * weight_bytes", "num_messages * 4"), "messages have the weights' bytes"),
    (bill(MESSAGES, "{1: 2, 2: 2, 3: 3}[stage]"), "the micro-batches are left out"),
    (bill(MESSAGES, "{1: num_micro + 1, 2: num_micro + 1, 3: 3 * num_micro}[stage]"),
     "they add up and leave once a step"),
    (bill(MESSAGES, "{1: 2, 2: 2 * num_micro, 3: 3 * num_micro}[stage]"), "after the update"),
    (bill(MESSAGES, "{1: 2, 2: 2, 3: 3 * num_micro}[stage]"), "they leave in each micro-batch"),
    (bill(MESSAGES, "{1: 2, 2: num_micro + 1, 3: 2 * num_micro}[stage]"), "twice in each micro"),
    (bill(MESSAGES, "{1: 2, 2: num_micro + 1, 3: num_micro + 2}[stage]"), "twice in each micro"),
    (bill(MESSAGES, "{1: 2, 2: num_micro + 1, 3: 3 * num_micro + 1}[stage]"),
     "the next forward does"),
    (lambda *a: zero_bill(*a)[0], "return two numbers"),
    (lambda *a: print(zero_bill(*a)), "without a return"),
]  # fmt: skip
