# %% [markdown]
# # Lab 10: predict, choose, train, explain, and how often to save
#
# The capstone of [lesson 10](../notebooks/10_all_together.ipynb): five exercises, about 75 minutes. You
# get a model, a budget and a target on a cloud of small devices that exists in formulas only, so that
# a bill is the same for everybody; the training is real. Complete each function and run the check
# right below it. Run All works at any time; what you have not touched says *not attempted yet*.
# Stuck? Remove the `#` before a `hint`; a second, longer one is `hint("10.1", 2)`.
#
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# You may use any of these:

# %%
import itertools
import json
import math
from dataclasses import replace

from utils.checks import check, hint, progress
from utils.checks.engine import judge
from utils.checks.lab_10_run import last_run
from utils.checks.truth_10_choose import CASES, allowed
from utils.checks.truth_10_cloud import Cloud, Job
from utils.checks.truth_10_explain import STORY, logs_of
from utils.checks.truth_10_run import CLOUD, JOB, RECIPES, TARGET_LOSS
from utils.costs import count_parameters, training_flops
from utils.measured import measured, table
from utils.planning.recipe_bytes import recipe_bytes
from utils.predict_checkpoint import recomputed_flops
from utils.recipe import TrainingRecipe
from utils.timing import use_one_thread
from utils.trainer.log import TrainingLog
from utils.trainer.start import start_training

use_one_thread()

# %% [markdown]
# ## Exercise 10.1: predict a run
#
# *difficulty 3/5 - 20 minutes*
#
# A `Job` has `config`, `sequences_per_step`, `num_steps` and `budget_usd`. A `Cloud` has `memory_bytes`,
# `flops_per_s(precision)`, `link_bytes_per_s` and `usd_per_hour` of one device, and `max_devices`.
# Each rank has a device. In a step all of them compute their share, then all send, at the same time;
# what one sends takes bytes / `link_bytes_per_s` seconds.
#
# Recipes are one process, torch's DDP, and our ZeRO-2, ZeRO-3 and FSDP. A pass of a ring sends
# (N - 1)/N of what it sums or hands out:
#
# * what a rank does not keep travels in every micro-batch, everything else once a step;
# * DDP sums fp32 gradients also in bf16, where ZeRO sends 2 bytes a value, and FSDP gathers 2-byte
#   weights and sums 4-byte gradients;
# * ZeRO-3 gathers all weights for forward and again for backward; FSDP does so for blocks alone, and
#   keeps the rest whole in between.

# %%
def predict_run(recipe: TrainingRecipe, job: Job, cloud: Cloud) -> dict[str, float]:
    """What the run will take: exact, but for padding and clipping, which you may leave out.

    Keys: peak_bytes (of a rank), sent_bytes_per_step (by a rank), and of the whole run tokens,
    flops (useful ones), recomputed_flops (what checkpointing does again) and usd.
    """
    ### BEGIN SOLUTION
    shape = job.config, recipe.sequences_per_step, job.config.context_length
    blocks = tuple((k,) for k in range(job.config.num_layers))
    is_again = recipe.checkpointing == "blocks"
    flops = training_flops(*shape)
    again = recomputed_flops(*shape, blocks) if is_again else 0
    count, micro = count_parameters(job.config), recipe.micro_batches
    root = count.total - job.config.num_layers * count.block
    is_low = recipe.precision == "bf16"
    weight, gradient = (2, 4 if recipe.method == "fsdp" else 2) if is_low else (4, 4)
    passes = {
        "single": 0,
        "ddp": 8 * count.total,
        "zero2": (weight + micro * gradient) * count.total,
        "zero3": micro * (2 * weight + gradient) * count.total,
        "fsdp": micro * ((2 * weight + gradient) * count.total - weight * root),
    }
    ranks = recipe.num_ranks
    sent = passes[recipe.method] * (ranks - 1) / ranks
    step_s = (flops + again) / (ranks * cloud.flops_per_s(recipe.precision))
    step_s += sent / cloud.link_bytes_per_s
    return {"peak_bytes": recipe_bytes(recipe, job.config).peak.total, "sent_bytes_per_step": sent,
            "tokens": shape[1] * shape[2] * job.num_steps, "flops": flops * job.num_steps,
            "recomputed_flops": again * job.num_steps,
            "usd": job.num_steps * step_s * ranks * cloud.usd_per_hour / 3600}
    ### END SOLUTION

# %% [markdown]
# Seven recipes of three models:

# %%
check("10.1", predict_run)
# hint("10.1")

# %% [markdown]
# ## Exercise 10.2: choose a recipe
#
# *difficulty 2/5 - 10 minutes*
#
# Your prediction decides. If it passes, `predict_run` may serve here.

# %%
def choose_recipe(job: Job, cloud: Cloud, recipes: list[TrainingRecipe]) -> TrainingRecipe | None:
    """The cheapest recipe of the list for the job on the cloud, or None if there is none.

    It trains on as many sequences a step as the job wants, in a precision that the devices have
    (the rate of others is 0), on at most max_devices. Its peak fits into a device, and its dollars
    into the budget. Of equally cheap ones, take any.
    """
    ### BEGIN SOLUTION
    best, best_usd = None, job.budget_usd
    for recipe in recipes:
        can_run = cloud.flops_per_s(recipe.precision) > 0
        right_size = recipe.sequences_per_step == job.sequences_per_step
        if not (can_run and right_size and recipe.num_ranks <= cloud.max_devices):
            continue
        run = predict_run(recipe, job, cloud)
        if run["peak_bytes"] <= cloud.memory_bytes and run["usd"] <= best_usd:
            best, best_usd = recipe, run["usd"]
    return best
    ### END SOLUTION

# %% [markdown]
# Six jobs, each on a cloud of its own:

# %%
check("10.2", choose_recipe)
# hint("10.2")

# %% [markdown]
# What is memory worth? The job of the second case, on devices with more and more of it:

# %%
def with_memory(memory_mb):
    case = replace(CASES[1], cloud=replace(CASES[1].cloud, memory_bytes=int(1e6 * memory_mb)))
    recipe = choose_recipe(case.job, case.cloud, list(case.recipes))
    able = [each for each in case.recipes if not allowed(each, case)]
    prices = {each: predict_run(each, case.job, case.cloud)["usd"] for each in able}
    tied = [each.name for each in able if math.isclose(prices[each], prices[recipe])]
    name = " or ".join(dict.fromkeys(tied))  # equally cheap ones
    return f"{memory_mb} MB", name, recipe.num_ranks, f"${prices[recipe]:.4f}"

if all(judge(key, answer).status == "passed"
       for key, answer in (("10.1", predict_run), ("10.2", choose_recipe))):
    rows = [with_memory(memory_mb) for memory_mb in (6, 8, 10, 12, 14, 18)]
    table(["a device's memory", "cheapest recipe", "devices", "dollars"], rows, "One job")
    print("More memory first spares the second run, then devices, and at last all messages.")
else:
    print("Your turn: the table appears when exercises 10.1 and 10.2 pass.")

# %% [markdown]
# ## Exercise 10.3: train to the target
#
# *difficulty 3/5 - 20 minutes*
#
# Now for real. `JOB` has 40 steps and $0.008, `CLOUD` two devices of 4.2 MB without bf16: no process
# alone fits. On text that training never sees, the loss must come down to `TARGET_LOSS` nats a byte.
# What you promise counts only if it stands in the first line of the log, before the first step: the
# trainer takes it from a JSON file, `--prediction FILE`.
#
# Nothing that your function returns is looked at. The check reads the log: is it this model, this
# text, a recipe of `RECIPES`, whole, within memory and budget on `CLOUD`? Does the prediction hold, bytes
# within 3 %, messages and dollars within 1 %, tokens and FLOPs exactly? And does one process, trained by
# the same settings, find the same losses?

# %%
def train_job(folder: Path) -> None:
    """Train JOB's model by one of RECIPES, with a prediction: start_training(..., folder=folder).

    `folder` does not exist yet, its parent does. The prediction is a JSON object with the keys of
    predict_run. The course's own text (no --text), JOB.num_steps steps.
    """
    ### BEGIN SOLUTION
    recipe = choose_recipe(JOB, CLOUD, list(RECIPES))
    prediction = folder.with_name("prediction.json")
    prediction.write_text(json.dumps(predict_run(recipe, JOB, CLOUD)))
    options = ("--steps", str(JOB.num_steps), "--prediction", str(prediction))
    start_training(recipe, *options, folder=folder, config=JOB.config)
    ### END SOLUTION

# %% [markdown]
# Some ten seconds of training, and an audit:

# %%
check("10.3", train_job)
# hint("10.3")

# %% [markdown]
# What was promised, what the log says, and this machine's own seconds, which nobody could promise:

# %%
def said_and_was(log):
    said, ranks = log.start["prediction"], log.end["ranks"]
    peak = max(each["peak_bytes"] for each in ranks)
    sent = max(each["sent_bytes_per_step"] for each in ranks)
    usd = log.end["seconds"] * len(ranks) * usd_per_core_hour / 3600
    return [
        ("peak of a rank, MB", said["peak_bytes"] / 1e6, measured(peak / 1e6)),
        ("sent in a step, MB", said["sent_bytes_per_step"] / 1e6, measured(sent / 1e6)),
        ("tokens", int(said["tokens"]), log.steps[-1]["tokens"]),
        ("seconds here", "-", measured(log.end["seconds"])),
        ("dollars", f"{said['usd']:.4f} on the cloud", measured(f"{usd:.2g} here")),
        ("validation loss", f"at most {TARGET_LOSS}", measured(log.end["validation_loss"])),
    ]

usd_per_core_hour = 0.05  # put in what you pay
run = last_run()
if run is not None:
    table(["", "promised", "in the log"], said_and_was(run), "Your run")
else:
    print("Your turn: the table appears when exercise 10.3 passes.")

# %% [markdown]
# ## Exercise 10.4: explain the difference
#
# *difficulty 4/5 - 15 minutes*
#
# The bill is never the planned one. Why? Each job has the logs of all its starts: a killed one as it
# was found, then that of the run that went on from a checkpoint. A resumed log begins with the steps
# that were kept, and its seconds and dollars "so far" contain theirs; what was lost stands in the log
# of whoever lost it, and was paid for. Ranks and price may change at each start.
#
# Fields: `log.start` has `tokens_per_step`, `flops_per_step`, `recomputed_flops_per_step`, `resumed_from` (a
# step, or None), `recipe["num_ranks"]` and `usd_per_gpu_hour`; each of `log.steps` has `step`, `tokens`,
# `seconds` and `usd`.

# %%
def explain(planned: list[TrainingLog], paid: list[TrainingLog]) -> dict[str, float]:
    """Seven factors, paid over planned, whose product is the paid dollars over the planned ones.

    tokens: kept at the end; repeated: tokens computed for each one kept; model: useful FLOPs for
    each token computed; recomputation: FLOPs done for each useful one; seconds: for each FLOP
    done; ranks: rank-seconds for each second; price: dollars for each rank-second.
    """
    ### BEGIN SOLUTION
    def quotients(logs: list[TrainingLog]) -> list[float]:
        sums = [0.0] * 7
        sums[0] = logs[-1].steps[-1]["tokens"]
        for log in logs:
            start, since, last = log.start, log.start["resumed_from"] or 0, log.steps[-1]
            before = log.steps[since - 1] if since else {"seconds": 0.0, "usd": 0.0}
            num_steps, seconds = last["step"] - since, last["seconds"] - before["seconds"]
            useful, again = start["flops_per_step"], start["recomputed_flops_per_step"]
            own = (start["tokens_per_step"] * num_steps, useful * num_steps,
                   (useful + again) * num_steps, seconds,
                   seconds * start["recipe"]["num_ranks"], last["usd"] - before["usd"])
            for place, value in enumerate(own, start=1):
                sums[place] += value
        return [sums[0], *(b / a for a, b in itertools.pairwise(sums))]

    names = ("tokens", "repeated", "model", "recomputation", "seconds", "ranks", "price")
    pairs = zip(names, quotients(planned), quotients(paid), strict=True)
    return {name: b / a for name, a, b in pairs}
    ### END SOLUTION

# %% [markdown]
# Six pairs of jobs, whose logs are made:

# %%
check("10.4", explain)
# hint("10.4")

# %% [markdown]
# A job was planned on demand at $2.00 a rank-hour, ran on spot machines, and was taken away twice.
# Was that a good idea?

# %%
if judge("10.4", explain).status == "passed":
    found = explain(logs_of(STORY.planned), logs_of(STORY.paid))
    rows = [(name, f"{value:.3f}") for name, value in found.items()]
    table(["factor", "paid over planned"], [*rows, ("all", f"{math.prod(found.values()):.3f}")],
          STORY.name.capitalize())
    print("The price outweighs what was lost, and more ranks took part of it back.")
else:
    print("Your turn: the table appears when exercise 10.4 passes.")

# %% [markdown]
# ## Exercise 10.5: how often to save
#
# *difficulty 4/5 - 10 minutes, optional*
#
# A spot machine is taken away at random, on average once in M seconds of rent, at any moment, also
# while it saves (c seconds) or restarts (r seconds); then everything since the last save is lost. To
# get t useful seconds done and saved, you rent M e^(r/M) (e^((t + c)/M) - 1) seconds on average (Daly,
# 2006). Save too often, and you pay for saves; too rarely, and you pay for losses.

# %%
def save_every(mean_hours: float, save_s: float, restart_s: float) -> tuple[float, float, float]:
    """(useful seconds between saves, rented seconds for each useful one, least discount in %).

    M is mean_hours. The interval is the cheapest one, to a tenth of a percent. At the least
    discount, spot costs for each useful second what a machine on demand does, which is never
    taken away and needs no saves.
    """
    ### BEGIN SOLUTION
    mean_s = 3600 * mean_hours

    def rented(useful_s: float) -> float:
        tries = math.exp(restart_s / mean_s) * math.expm1((useful_s + save_s) / mean_s)
        return mean_s * tries / useful_s

    low, high = 0.0, mean_s
    for _ in range(100):
        third = (high - low) / 3
        if rented(low + third) < rented(high - third):
            high -= third
        else:
            low += third
    best = (low + high) / 2
    return best, rented(best), 100 * (1 - 1 / rented(best))
    ### END SOLUTION

# %% [markdown]
# Five machines, from calm to restless:

# %%
check("10.5", save_every)
# hint("10.5")

# %% [markdown]
# A save of 30 s and a restart of 5 minutes. How restless may a machine be?

# %%
def spot_row(mean_hours):
    useful_s, rented, percent = save_every(mean_hours, 30, 300)
    young_s = math.sqrt(2 * 30 * 3600 * mean_hours)
    minutes = (f"{seconds / 60:.1f}" for seconds in (useful_s, young_s))
    return f"{mean_hours:g} h", *minutes, f"{rented:.3f}", f"{percent:.1f} %"

if judge("10.5", save_every).status == "passed":
    headers = ["taken away once in", "minutes between saves", "sqrt(2 c M)", "rented per useful",
               "least discount"]
    table(headers, [spot_row(hours) for hours in (0.1, 0.5, 2, 8, 24)], "Spot machines")
else:
    print("Your turn: the table appears when exercise 10.5 passes.")

# %% [markdown]
# Near its lowest point the price hardly changes, so the guess sqrt(2 c M) does well where machines are
# calm. Discounts are usually larger than these: what you lose on spot is mostly time.
#
# ## Where you stand
#
# All passed? Then you can say before a run what it will take, choose by it, show that it did, and
# explain what it did not:

# %%
progress("lab_10")
