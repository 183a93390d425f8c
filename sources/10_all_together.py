# %% [markdown]
# # All together: a decision and a command
#
# Nine lessons, and many ways to pay less. Which of them are for *you*: your model, your GPUs, your
# budget? Here one GPT climbs a ladder, one change a rung, and every rung is measured. A planner then
# ranks whole recipes for machines that you do not have, and is held against published runs. The
# recipe that it names becomes a command: the same on this laptop, on two machines, in a Slurm job.
# About 85 minutes; two cores are enough, no GPU needed.
#
# 1. [The bill of deciding](#1.-The-bill-of-deciding)
# 2. [Naive: one technique at a time](#2.-Naive:-one-technique-at-a-time)
# 3. [The ladder](#3.-The-ladder)
# 4. [Predicted, then measured](#4.-Predicted,-then-measured)
# 5. [The same numbers, whoever computes](#5.-The-same-numbers,-whoever-computes)
# 6. [Better: a planner](#6.-Better:-a-planner)
# 7. [Is the planner right?](#7.-Is-the-planner-right?)
# 8. [Outgrow the laptop](#8.-Outgrow-the-laptop)
# 9. [When it does not pay](#9.-When-it-does-not-pay)

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# ## 1. The bill of deciding
#
# A *recipe* says how to train: precision, attention, checkpointing, one of seven methods, by whose
# code, the sequences that a rank sends through at a time, and how many such micro-batches make a
# step. Take 8 GPUs and 512 sequences a step. How many different recipes are there?

# %%
guess_recipes = 50  # your prediction

# %% [markdown]
# `TrainingRecipe` refuses what cannot be, so we try everything and count what it lets pass:

# %%
from itertools import product

from utils.predictions import reveal
from utils.recipe import ATTENTIONS, CHECKPOINTINGS, LIBRARIES, METHODS, PRECISIONS, TrainingRecipe

def recipe_or_none(*choices):
    try:
        return TrainingRecipe(*choices)
    except ValueError:
        return None

sizes = [(size, 64 // size, 8) for size in (1, 2, 4, 8, 16, 32, 64)]
choices = product(PRECISIONS, ATTENTIONS, CHECKPOINTINGS, METHODS, LIBRARIES, sizes)
possible = list(filter(None, (recipe_or_none(*how, *size) for *how, size in choices)))
reveal("Recipes", guess_recipes, len(possible))

# %% [markdown]
# Each of them trains the same model on the same tokens. Trying all would cost more than the best
# one saves. Here is one recipe, in words and as a command:

# %%
recipe = TrainingRecipe("bf16", checkpointing="blocks", method="fsdp", num_ranks=8, micro_batches=8)
print(recipe.name)
print(recipe.command("--steps 1000 --folder runs/first"))

# %% [markdown]
# ## 2. Naive: one technique at a time
#
# The usual way to decide is to take the factors as they are advertised, and to multiply. 16 bits are
# half of 32, checkpointing saves "up to 70 %", and two shards are half each. What would be left of the
# peak of a GPU?

# %%
promised = 0.5 * 0.3 * 0.5
print(f"{promised:.1%} of the peak would be left")

# %% [markdown]
# Keep that figure.
#
# ## 3. The ladder
#
# Eight rungs; each one changes one thing of the rung below it. The last three cut the same step into
# halves, one for each of two ranks, and differ by the method alone; their code is ours:

# %%
from utils.experiments.ladder import CONFIG, RUNGS, climb
from utils.measured import measured, measured_where, table

rows = [(rung.name, rung.recipe.name, rung.recipe.sequences_per_step) for rung in RUNGS]
table(["rung", "recipe", "sequences a step"], rows, "The ladder")

# %% [markdown]
# All rungs see the same text in the same order, and all of them are trained in turn, so that a busy
# moment of this machine hits each of them. A core is a device here, and has a price. FSDP's rung is
# the recipe of section 2: as many sequences for each rank as in the first rung, 16 bits,
# checkpointing, two shards. What will its peak be, in percent of the first rung's?

# %%
usd_per_core_hour = 0.05  # put in what you pay
guess_percent = 100 * promised  # or your own prediction

# %% [markdown]
# The climb trains for some seconds:

# %%
from utils.ladder_report import print_ladder, print_verdict, step_sentences
from utils.timing import use_one_thread

use_one_thread()
results = climb(budget_s=6)
print_ladder(results, usd_per_core_hour)
print("Measured on", measured_where("fp32 and bf16"))

# %%
fsdp = results[-2]
reveal(f"Peak of {fsdp.rung.name}, in percent of the first rung's", guess_percent,
       100 * fsdp.peak_bytes / results[0].peak_bytes)

# %% [markdown]
# Each factor was right about its own bytes, and these are not the same ones: 16 bits and checkpoints
# shrink activations, shards what is held for each parameter, and gathered layers come on top.
#
# Quality stands next to cost, in the last column. What computes in 16 bits, again, or in parts hardly
# moves the loss. The bigger batch does: for the same tokens it makes half as many updates, here at
# the same learning rate. Whoever compares tokens per second alone does not see that.
#
# What did each rung change, and what did it take in return?

# %%
for sentence in step_sentences(results):
    print(sentence)

# %% [markdown]
# The same in one figure:

# %%
from utils.ladder_plots import draw_ladder
from utils.plots import new_figure, show

figure = new_figure(10, 4.2)
reading = draw_ladder(figure, results, usd_per_core_hour)
show(figure, "The ladder", reading)

# %% [markdown]
# And the ladders of other machines, as `make record` has kept them:

# %%
from utils.ladder_report import RECORDED_HEADERS, recorded_rows
from utils.recorded import load_recorded, show_recorded

runs = load_recorded("ladder")
prices = {"cpu": usd_per_core_hour, "cuda": 3.99}  # an H100 at Lambda on 2026-09-20
show_recorded("Recorded ladders", RECORDED_HEADERS, recorded_rows(runs, prices),
              [run.kind for run in runs])

# %% [markdown]
# ## 4. Predicted, then measured
#
# A planner has to know these numbers without climbing. The bytes follow from formulas, one for each
# rung. How far off are they?

# %%
from utils.planning.recipe_bytes import recipe_bytes

def bytes_row(result):
    predicted, peak = recipe_bytes(result.rung.recipe, CONFIG).peak.total, result.peak_bytes
    return result.rung.name, predicted, peak, f"{predicted / peak - 1:+.1%}"

headers = ["rung", "predicted", "measured", "off by"]
table(headers, [bytes_row(result) for result in results], "Peak bytes of a rank")

# %% [markdown]
# Within one percent. The missing bytes are temporary tensors too small to be worth a formula.
#
# Seconds need a measurement of this machine, but not of the rung itself. We time models of one and
# of three layers, on one and on three sequences; four layers on two sequences follow by straight
# lines. Five rungs are enough to see how well. Is a step within 15 % of its prediction?

# %%
from utils.planning.this_machine import calibrate

few = [results[place] for place in (0, 2, 3, 4, 6)]
times = calibrate([result.rung.recipe for result in few], CONFIG, budget_s=6)

def time_row(result):
    predicted_s, taken_s = times.step_s(result.rung.recipe), result.step_s
    shown = [measured(1e3 * seconds, "ms") for seconds in (predicted_s, taken_s)]
    return result.rung.name, *shown, measured(f"{predicted_s / taken_s - 1:+.0%}")

table(headers, [time_row(result) for result in few], "Seconds of a step")

# %% [markdown]
# The two measurements were taken one after the other, so a machine that is busier in one of them
# shows here. It shows most on two ranks, where each waits for the slower one, and two cores leave
# none for anybody else. Bytes can be planned from a desk; seconds need the machine.
#
# ## 5. The same numbers, whoever computes
#
# You have read each technique from scratch and met the library that does it. Before choosing one by
# its price: are they interchangeable? The same GPT, seed and batches under what the course teaches.
# Left out is what lessons 03 and 07 compared: fp16 with its scaler, the other stages of ZeRO
# (`compare_everything()` alone trains those too). Gaps are the largest differences from one process in
# fp32, and from ours; weights are sent in units of the model, and "at least" is what the same calls
# need:

# %%
from utils.peers.everything import compare_everything, print_everything

techniques = ("plain step", "autocast, bf16", "checkpointing", "DDP", "ZeRO-2", "FSDP", "YaFSDP")
print_everything(compare_everything(techniques=techniques))

# %% [markdown]
# In fp32 nobody is more than a hundred-thousandth of a nat away from one process, nor a library
# from ours. What differs is what they hold and send: DeepSpeed's second fp32 copy, gloo's
# reduce-scatter, YaFSDP's buffers, with so few layers most of the model. The loss does not decide.
#
# ## 6. Better: a planner
#
# The planner does for any machine what section 4 did for this one. It counts products at a share of
# the chip's measured rate, element-wise work and the optimizer by memory bandwidth, messages on the
# simulator's timelines of lessons 06 to 09; a recipe that exceeds the chip's memory is out. Take GPT-2
# with 124 million parameters, 10 billion tokens and eight A100s. You can make a first guess yourself,
# with lesson 01's six FLOPs for each parameter and token, and two numbers of the planner's tables:

# %%
from utils.planner import PlanRequest, plan
from utils.planning.hour_price import hour_price

request = PlanRequest("gpt2-124m", tokens=10e9, chip="A100 80GB", num_gpus=8)
peak, hour = request.chip_row.peak_flops("bf16"), hour_price(request)
print(f"One A100: {peak / 1e12:g} TFLOP/s in bf16 at best, ${hour.usd} an hour ({hour.words})")

# %% [markdown]
# The open question is yours: which share of that peak will the training reach? 1 is what the data
# sheet promises. What is the rent then?

# %%
share_of_peak = 1.0  # your prediction
guess_usd = 6 * 124e6 * 10e9 / (share_of_peak * peak) / 3600 * hour.usd

# %%
from utils.planning.plan_table import HEADERS, plan_rows, size_rows, time_rows

small = plan(request)
reveal("Rent", guess_usd, small.best.usd, "$")
table(HEADERS, plan_rows(small.feasible[:6]), f"The cheapest of {len(small.feasible)} recipes")

# %% [markdown]
# The last column is the share that you guessed. The planner takes each method with and without
# checkpointing, in fp32 and in the chip's own 16 bits, with as many sequences at a time as fit. The
# first five tie: they differ by less than any prediction is worth. DDP is dearer. Where do its seconds
# go, and the bytes of a GPU?

# %%
ddp = next(each for each in small.feasible if each.recipe.method == "ddp")
heads = [small.best.recipe.name, "share", ddp.recipe.name, "share"]
table(["part", *heads], time_rows(small.best, ddp), "Seconds of a step")
table(["part", *heads], size_rows(small.best, ddp), "Bytes on one GPU, at the peak")

# %% [markdown]
# Products take equally long, and messages hardly count. Most of the difference is element-wise. Under
# autocast norms and residuals stay fp32, and what goes into a product is cast, in each layer. For a
# token and one of its 768 values that is, in bytes, forward and backward:

# %%
from utils.planning.assumptions import Assumptions, memory_bytes_per_s

wider = (4 - 2) * (10 + 12)  # norms and residuals read and write 10 values, then 12, in fp32
casts = 6 * (2 + 4)  # each cast reads four bytes and writes two
num_bytes = 12 * 64 * 1024 * 768 * (wider + casts)  # layers, sequences, tokens, width
bandwidth = memory_bytes_per_s(request.chip_row, Assumptions())  # what such kernels should reach
print(f"{num_bytes / 1e9:.0f} GB more to move, {num_bytes / bandwidth:.3f} s")
print(f"of which casts: {casts / (wider + casts):.0%}")

# %% [markdown]
# The rest is the optimizer: each DDP rank updates all weights, the others an eighth.
#
# A large model leaves less choice. Llama 2's 70 billion parameters on its 2 trillion tokens and 512
# A100s, in at most 120 days. What is out, and why?

# %%
large = plan(PlanRequest("Llama 2 70B", 2e12, "A100 80GB", 512, deadline_days=120))
print(large.verdict)
shown = [*large.refused[:3], *[each for each in large.refused if each.is_too_large][:3]]
table(["recipe", "out because"], [(each.recipe.name, each.problem) for each in shown],
      f"Six of {len(large.refused)} that are out")

# %% [markdown]
# "Out" comes with a number, and a number can be changed. Which single change would help most? The
# planner tries them, by planning again with each:

# %%
for change in large.changes[:4]:
    print(change.sentence())

# %% [markdown]
# Such a list is the economics of this course in four lines. It is also only as good as its prices:
# each row of the price table has a date, and yours goes in as `usd_per_gpu_hour=`. Move the controls
# to your own case:

# %%
from utils.planner_explorer import planner_explorer

planner_explorer()

# %% [markdown]
# ## 7. Is the planner right?
#
# A plan is worth what its predictions are worth. Twelve trainings whose GPU-hours are public, from 45
# minutes on eight GPUs to Llama 3.1 with 405 billion parameters. Two constants of the planner, the
# share of a chip's rate that products reach and what messages slow down, were fitted to two of
# the twelve and to four rows of YaFSDP's table (Llama 2 7B and 70B); everything else is counted, cited or
# assumed. How many of the twelve does it predict within 15 %?

# %%
guess_within = 12  # your prediction

# %%
from utils.planning import published_checks as checks
from utils.planning.published import check_trainings, check_yafsdp

trainings = check_trainings()
reveal("Within 15 %", guess_within, sum(abs(each.error) <= 0.15 for each in trainings))
table(checks.HEADERS, checks.check_rows(trainings), "GPU-hours, published and predicted")
for used in checks.USES:
    print(checks.summary(trainings, used))

# %% [markdown]
# Half of them. "Fit used" tells what that proves: two are the runs that were fitted to; Meta's
# Llama-2-70B and two of GPT-2 124M are other runs of blocks that the fit had met. Only the last line
# speaks of models that are new to it, and no run is a blind test: all were known when the planner was
# written.
#
# Look at the signs: the plan is too cheap more often than too dear, and the more so the more there is
# around a step: interruptions, evaluations, pipelines that wait, chips that run below their rated
# power. The last column has each reason, with a figure where the planner can make one. So leave room in a budget. The same constants on YaFSDP's
# sixteen measurements, the seconds of FSDP and of YaFSDP, on a network whose rate was fitted to four of
# them:

# %%
steps = check_yafsdp()
for used in checks.USES:
    print(checks.summary(steps, used))
print("The worst:")
for each in sorted(steps, key=lambda each: -abs(each.error))[:4]:
    print(f"{each.run}: {each.error:+.0%} ({each.fit_used})")

# %% [markdown]
# The worst are large models under YaFSDP with short sequences. The planner gives YaFSDP the same
# network as FSDP, so it misses the very gain that lesson 09 is about. Trust it for what fits and for
# the size of the bill; no test here shows that it can rank two methods that are close.
#
# ## 8. Outgrow the laptop
#
# A plan ends in a command. The trainer behind it is `utils.train`: the systems of this lesson, plus
# what a long run needs, which is a log, checkpoints, and a way back after a crash. A cell can start
# that very command on this machine's cores. Here on two ranks, with a checkpoint every 8 steps:

# %%
import tempfile

from utils.trainer.start import start_training

recipe = TrainingRecipe(method="fsdp", num_ranks=2, batch_size=2)
options = ("--steps", "16", "--save-every", "8", "--usd-per-gpu-hour", str(usd_per_core_hour))
runs_folder = Path(tempfile.mkdtemp())
print(recipe.command(*options))
whole = start_training(recipe, *options, folder=runs_folder / "whole")

# %% [markdown]
# Every step is one line of the log, a JSON object, so that any program can read it. The last one,
# and what each rank held, sent and needed at its peak:

# %%
last, ranks = whole.steps[-1], whole.end["ranks"]
print("tokens:", f"{last['tokens']:,}", "in", measured(last["seconds"], "s"))
print("MFU:", measured(f"{last['mfu']:.1%} of the rate of a {whole.start['peak_source']}"))
print("dollars so far:", measured(f"{last['usd']:.2g}"))
rows = [(each["rank"], sum(each["held"].values()), each["peak_bytes"], each["sent_bytes_per_step"])
        for each in ranks]
table(["rank", "held", "peak", "sent in a step"], rows, "Bytes of each rank")

# %% [markdown]
# A spot machine can be taken away at any time. So we pull the plug of a second run at step 11, that
# is, end all of its processes at once:

# %%
class PlugPulled(Exception):
    pass

def pull_the_plug(event):
    if event["event"] == "step" and event["step"] == 11:
        raise PlugPulled

try:
    start_training(recipe, *options, folder=runs_folder / "torn", report=pull_the_plug)
except PlugPulled:
    print("saved by then:", *sorted(each.name for each in (runs_folder / "torn").glob("step-*")))

# %% [markdown]
# Steps 9 to 11 are lost, and paid for. Does the run that goes on from step 8 end where the other
# one ended?

# %%
resumed = start_training(recipe, *options, "--resume", folder=runs_folder / "torn")
print(*resumed.notes)
print("the same losses in every bit:", resumed.losses == whole.losses)

# %% [markdown]
# Weights, Adam's moments, the position in the text and the learning rate are all in the
# checkpoint, so nothing tells the two apart but the bill. Both logs in one figure:

# %%
figure = new_figure(7, 3)
axes = figure.subplots()
for name, log, style in (("whole", whole, "-"), ("torn and resumed", resumed, "--")):
    axes.plot([each["step"] for each in log.steps], log.losses, style, label=name)
axes.axvline(8, color="gray", lw=1)
axes.set(xlabel="step", ylabel="loss, nats a byte")
axes.legend()
show(figure, "Two runs", "The resumed run's curve lies on the uninterrupted one from step 8 on.")

# %% [markdown]
# For two machines only the words before `-m` change: how many there are, and where they meet. One
# line for each, with addresses that you put in; both must see the same folder:

# %%
from dataclasses import replace

from utils.trainer.commands import machine_commands, slurm_script

wide = replace(recipe, num_ranks=16)
lines = machine_commands(wide, ("10.0.0.1", "10.0.0.2"), "--folder", "shared/run")
print("\n\n".join(lines))

# %% [markdown]
# And under Slurm, which finds the machines for you:

# %%
print(slurm_script(wide, 2, "--folder", "shared/run"))

# %% [markdown]
# The course's tests run two such lines against each other, on two addresses of one machine. That
# proves that ranks meet, talk and train as one process does. It proves nothing about NCCL, about a
# shared file system, or about Slurm itself.
#
# ## 9. When it does not pay
#
# On this machine, which rungs made a token dearer than the rung below?

# %%
print_verdict(results)

# %% [markdown]
# A rung that is dearer can still be right: checkpointing and FSDP buy *room*, and room pays only
# where it is used, for a bigger batch, a longer context, a model that did not fit. More GPUs buy
# *days*. What do they cost? The small model of section 6 on more and more machines:

# %%
rows = []
for num_gpus in (8, 64, 512):
    found = plan(PlanRequest("gpt2-124m", 10e9, "A100 80GB", num_gpus))
    best = found.best
    rows.append((num_gpus, best.recipe.name, len(found.ties), f"{24 * best.days:.2f}",
                 f"{best.usd:.0f}", f"{best.mfu:.0%}"))
headers = ["GPUs", "cheapest recipe", "others within 2 %", "hours", "dollars", "MFU"]
table(headers, rows, "Wall-clock against dollars")

# %% [markdown]
# 64 times the GPUs are not 64 times as fast, and the difference is on the bill. Nor does planning
# always pay: for a run as cheap as the first row, no decision is worth an afternoon.
#
# ## Takeaways
#
# 1. Factors do not multiply. Bytes follow from formulas of the whole step; seconds need a measurement.
# 2. Everyone computes the same training: choose by bytes, seconds, dollars, and who maintains it.
# 3. Put the loss next to the price: cheap tokens are no bargain if they teach less.
# 4. A recipe that is out says by how much; what would help most is found by planning again.
# 5. With checkpoints that resume to the bit, spot machines are a price like any other.
#
# In the [lab](../labs/lab_10_all_together.ipynb) you get a budget and a target. In
# [lesson 11](11_the_article_checked.ipynb) every claim of the article meets its evidence.
