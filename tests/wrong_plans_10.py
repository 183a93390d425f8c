"""Lab 10's wrong predictions and choices, each with the words of its check."""

from dataclasses import replace
from functools import partial

from tests.wrong_builders_10 import mutant, right

predict, choose = partial(mutant, "10.1"), partial(mutant, "10.2")

PEAK = "recipe_bytes(recipe, job.config).peak.total"
SHAPE = "shape = job.config, recipe.sequences_per_step, job.config.context_length"
WEIGHTS = "(2, 4 if recipe.method == \"fsdp\" else 2) if is_low else (4, 4)"
SENT = "sent = passes[recipe.method] * (ranks - 1) / ranks"
COMPUTE = "step_s = (flops + again) / (ranks * cloud.flops_per_s(recipe.precision))"
SEND = "step_s += sent / cloud.link_bytes_per_s"
USD = "job.num_steps * step_s * ranks * cloud.usd_per_hour / 3600"
AGAIN = "again = recomputed_flops(*shape, blocks) if is_again else 0"
FLOPS = '"flops": flops * job.num_steps'
MICRO = "count, micro = count_parameters(job.config), recipe.micro_batches"
ALONE = "replace(recipe, method='single', library='torch', num_ranks=1)"
SAME = "predict_run(recipe, job, cloud)"


def other_recipe(change):
    """Messages of another recipe, all the rest right."""

    def predict_run(recipe, job, cloud):
        other = right["predict_run"](change(recipe), job, cloud)
        mine = right["predict_run"](recipe, job, cloud)
        return mine | {"sent_bytes_per_step": other["sent_bytes_per_step"]}

    return predict_run


def as_method(method, library):
    return other_recipe(
        lambda r: r if r.method == "single" else replace(r, method=method, library=library)
    )


PREDICTIONS = [
    (predict(PEAK, f"{PEAK} * ranks"), "this is the whole job: a rank's bytes"),
    (predict(PEAK, "recipe_bytes(recipe, job.config).held.total"), "activations are missing"),
    (predict(PEAK, f"recipe_bytes({ALONE}, job.config).peak.total"), "shards are forgotten"),
    (predict(PEAK, "recipe_bytes(replace(recipe, batch_size=recipe.batch_size * micro, "
             "micro_batches=1), job.config).peak.total"), "only one is in memory"),
    (predict(PEAK, "recipe_bytes(replace(recipe, checkpointing='none'), job.config).peak.total"),
     "the peak without checkpointing"),
    (predict(PEAK, "recipe_bytes(replace(recipe, precision='fp32'), job.config).peak.total / "
             "(2 if is_low else 1)"), "bf16 does not halve everything"),
    (predict(PEAK, "recipe_bytes(replace(recipe, precision='fp32'), job.config).peak.total"),
     "the precision is forgotten"),
    (predict(SENT, f"{SENT} * ranks"), "this is the whole job: a rank's bytes"),
    (predict(SENT, "sent = passes[recipe.method] * (ranks > 1)"), "own part stays at home"),
    (predict(MICRO, "count, micro = count_parameters(job.config), 1"),
     "micro-batches are forgotten"),
    (predict("- weight * root", ""), "it is gathered once"),
    (as_method("ddp", "torch"), "two passes are DDP's"),
    (as_method("zero3", "ours"), "three passes are those of gathered weights"),
    (predict(WEIGHTS, "(2, 2) if is_low else (4, 4)", "8 * count.total",
             "(4 if is_low else 8) * count.total"), "bf16 does not halve everything"),
    (predict(WEIGHTS, "(4, 4)"), "bf16 weights travel in 2 bytes"),
    (predict('"sent_bytes_per_step": sent', '"sent_bytes_per_step": sent * job.num_steps'),
     "the whole run: one step is asked for"),
    (predict(FLOPS, '"flops": (flops + again) * job.num_steps'), "FLOPs done again are not useful"),
    (predict(FLOPS, '"flops": 6 * count.total * shape[1] * shape[2] * job.num_steps'),
     "6ND is a rule of thumb"),
    (predict(FLOPS, '"flops": flops // 3 * job.num_steps'), "this is forward alone"),
    (predict("shape[1] * shape[2] * job.num_steps", "shape[1] // ranks * shape[2] * job.num_steps"),
     "this is one rank's share"),
    (predict(" * job.num_steps, \"flops\"", ", \"flops\""), "this is one step"),
    (predict("shape[1] * shape[2] * job", "shape[1] // micro * shape[2] * job"),
     "a step has several micro-batches"),
    (predict(AGAIN, "again = 0"), "these FLOPs are not 0"),
    (predict(AGAIN, AGAIN.replace("blocks)", "blocks, early_stop=False)")),
     "ends before its last product"),
    (predict(AGAIN, "again = flops / 3 if is_again else 0"), "a third more is the rule of thumb"),
    (predict(AGAIN, "again = recomputed_flops(*shape, blocks)"), "nothing is run again"),
    (predict(USD, "job.num_steps * step_s * cloud.usd_per_hour / 3600"),
     "the dollars of one rank only"),
    (predict(COMPUTE, COMPUTE.replace("(flops + again)", "flops")),
     "FLOPs done again are paid for"),
    (predict(SEND, ""), "messages are paid for"),
    (predict(COMPUTE, COMPUTE.replace("ranks * ", "")), "each does an N-th"),
    (predict(SEND, "step_s = max(step_s, sent / cloud.link_bytes_per_s)"), "the two add up"),
    (predict(SEND, "step_s += ranks * sent / cloud.link_bytes_per_s"), "the seconds of one count"),
    (predict(COMPUTE, COMPUTE.replace("recipe.precision", "'fp32'")), "a rate of its own"),
    (predict(USD, USD.replace("job.num_steps * ", "")), "this is one step"),
    (predict(USD, USD.replace(" / 3600", "")), "for an hour, not for a second"),
    (predict('"usd":', '"dollars":'), "usd is missing"),
    (predict('return {', 'found = {'), "without a return"),
    (predict(f'"peak_bytes": {PEAK}', '"peak_bytes": "much"'), "must be a number"),
]  # fmt: skip

FITS = 'run["peak_bytes"] <= cloud.memory_bytes'
WITHIN = 'run["usd"] <= best_usd'
RUN = f"run = {SAME}"
BEST = 'best, best_usd = recipe, run["usd"]'
START = "best, best_usd = None, job.budget_usd"
RANKS = "recipe.num_ranks <= cloud.max_devices"
SIZE = "right_size = recipe.sequences_per_step == job.sequences_per_step"
CAN = "can_run = cloud.flops_per_s(recipe.precision) > 0"


def least(number):
    """The allowed recipe with the least of something else."""
    return choose(START, "best, best_usd = None, math.inf",
                  WITHIN, f'run["usd"] <= job.budget_usd and {number} < best_usd',
                  BEST, f"best, best_usd = recipe, {number}")  # fmt: skip


def instead(text):
    """Another prediction than predict_run's."""
    usd_per_byte = ("job.num_steps / cloud.link_bytes_per_s * recipe.num_ranks * "
                    "cloud.usd_per_hour / 3600")  # fmt: skip
    return choose(RUN, f"{RUN}\n        {text.replace('USD_PER_BYTE', usd_per_byte)}")


CHOICES = [
    (choose(FITS, "recipe_bytes(recipe, job.config).held.total <= cloud.memory_bytes"),
     "activations are ignored"),
    (choose(FITS, "True"), "the memory of a device is ignored"),
    (choose(FITS, f"predict_run({ALONE}, job, cloud)['peak_bytes'] <= cloud.memory_bytes"),
     "a device holds its shards only"),
    (choose(FITS, 'recipe.num_ranks * run["peak_bytes"] <= cloud.memory_bytes'),
     "a device holds its shards only"),
    (choose(START, "best, best_usd = None, math.inf"), "the budget is ignored"),
    (choose(START, "best, best_usd = None, math.inf",
            WITHIN, f'run["usd"] / recipe.num_ranks <= job.budget_usd and {WITHIN}'),
     "all devices are paid for"),
    (choose(SIZE, "right_size = True"), "other sequences than the job wants"),
    (choose(SIZE, "right_size = recipe.batch_size * recipe.num_ranks == job.sequences_per_step"),
     "micro-batches belong to the step's sequences"),
    (choose(RANKS, "True"), "so many devices are not to be had"),
    (choose(CAN, "can_run = True\n        rate = cloud.bf16_flops_per_s or 3 * "
            "cloud.fp32_flops_per_s\n        cloud = replace(cloud, bf16_flops_per_s=rate)",
            START, "best, best_usd = None, math.inf"), "these devices have no bf16"),
    (choose(CAN, "can_run = True"), "these devices have no bf16: their rate is 0"),
    (instead("run['usd'] -= run['recomputed_flops'] / cloud.flops_per_s(recipe.precision) * "
             "cloud.usd_per_hour / 3600"), "checkpointing is not free"),
    (instead("run['usd'] -= (run['sent_bytes_per_step']) * USD_PER_BYTE"), "messages take time"),
    (instead("run['usd'] -= (run['sent_bytes_per_step'] - predict_run(replace(recipe, "
             "micro_batches=1), job, cloud)['sent_bytes_per_step']) * USD_PER_BYTE"),
     "messages of each micro-batch are forgotten"),
    (least('run["peak_bytes"]'), "the fewest bytes are not asked for"),
    (least('run["usd"] / recipe.num_ranks'), "the fastest, not the cheapest"),
    (least("recipe.num_ranks"), "the fewest devices are not always the cheapest"),
    (choose(BEST, "return recipe"), "the first recipe that will do"),
    (least('-run["usd"]'), "this is the dearest"),
    (choose("return best", "return None"), "None for every job"),
    (choose("return best", "return best and best.name"), "return a TrainingRecipe or None"),
    (choose("return best", "return TrainingRecipe(batch_size=3)"), "not in the list"),
]  # fmt: skip
