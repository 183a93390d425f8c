# %% [markdown]
# # The article, checked
#
# This course grew from one article: "The economics of GPUs: How to train your AI model without
# going broke", a guest piece in VentureBeat of August 2024. Its numbers are repeated in many
# places, mostly without saying where they come from. Here each of 21 claims gets a source, a
# computation and a verdict, and no verdict is mere opinion: a rule makes it from the numbers. About
# 75 minutes; no GPU needed.
#
# 1. [The bill of believing](#1.-The-bill-of-believing)
# 2. [How a verdict is made](#2.-How-a-verdict-is-made)
# 3. [What a model costs](#3.-What-a-model-costs)
# 4. [Sixteen bits](#4.-Sixteen-bits)
# 5. [Checkpoints](#5.-Checkpoints)
# 6. [Many GPUs](#6.-Many-GPUs)
# 7. [Hardware and rent](#7.-Hardware-and-rent)
# 8. [What the article leaves out](#8.-What-the-article-leaves-out)
# 9. [Twenty-one verdicts](#9.-Twenty-one-verdicts)
# 10. [When it does not pay](#10.-When-it-does-not-pay)

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# A word on fairness. Only copies of the article could be read, the later parts in a machine's
# paraphrase. So claims are given by their meaning; where the wording decides (3, 4 and 9), the
# verdict is on the words as read and not on the author. One tool, Yandex's, gets a range over its
# closest rival; whether the author works there could not be read (unverified).
#
# ## 1. The bill of believing
#
# Take the article's best factors at face value: 6 for 16 bits, 10 for DeepSpeed, 20 % for FSDP and
# 25 % for YaFSDP. It does not say that they multiply, but readers do. Plan Llama-2-70B that way: its
# FLOPs, on A100s in fp32 at the utilisation that Meta reached in bf16, made cheaper by all four. (An
# A100's peaks: 312 TFLOP/s in bf16, 19.5 in fp32.) How many times that budget did the real run take?

# %%
guess_times = 1.5  # your prediction

# %% [markdown]
# The claims stand in a table of the course, `utils/data/claims.csv`. The naive reader multiplies:

# %%
from math import prod

from utils.claims import find_claim, load_claims
from utils.costs import gpu_hours, mfu, rule_of_thumb_flops
from utils.predictions import reveal
from utils.prices import find_chip, find_training_run

run, a100 = find_training_run("Llama-2-70B"), find_chip("A100 80GB")
flops = rule_of_thumb_flops(run.parameters, run.tokens)
utilisation = mfu(flops, run.gpu_hours * 3600, a100.peak_flops("bf16"))
believed = [find_claim(5).claimed.high, find_claim(15).claimed.high,
            *(1 + find_claim(n).claimed.high / 100 for n in (16, 17))]
hours = gpu_hours(flops, a100.peak_flops("fp32"), utilisation) / prod(believed)
print(f"{prod(believed):.0f} times cheaper: {hours:,.0f} hours believed")
print(f"taken: {run.gpu_hours:,.0f} hours")
reveal("Taken over believed", guess_times, run.gpu_hours / hours, "times")

# %% [markdown]
# A budget that ends before a fifth of the run is done: that is what it costs to believe numbers. So
# let us check them.
#
# ## 2. How a verdict is made
#
# There are five verdicts: *holds*, *holds only if*, *overstated*, *wrong*, and *cannot be settled
# here*. A claim that says when something is so is tried on cases; a claim with a range is held
# against the range that was found or published:

# %%
from collections.abc import Mapping

from utils.evidence.finding import HOLDS, ONLY_IF, OPEN, OVERSTATED, WRONG, Finding, Span

# show: utils.evidence.finding.by_cases without docstring


# show: utils.evidence.finding.by_range without docstring

# %% [markdown]
# (A third rule asks whether what is left out is larger than all that is named.) Rules are strict,
# and blunt: one case that fails turns *holds* into *holds only if*. So the condition matters more
# than the word. Now you: how many of the 21 hold as they stand, and what is your verdict on six of
# them?

# %%
print("\n".join(f"{claim.number:>2}. {claim.short}" for claim in load_claims()))
guess_holding = 10  # your prediction
my_verdicts = {
    1: "holds",  # Llama-2-70B took at least 10^24 FLOPs
    5: "holds",  # 16 bits are up to 6 times as fast on GPUs
    9: "holds",  # checkpointing keeps computations to a minimum
    12: "holds",  # PyTorch supports checkpointing
    14: "holds",  # several GPUs cut the running cost
    17: "holds",  # YaFSDP is 10-25 % faster than FSDP
}

# %% [markdown]
# ## 3. What a model costs
#
# Evidence is a function of the claim: it computes, and hands both ranges to a rule. By how much is
# "at least 10^24" too high?

# %%
from utils.claims import Claim
from utils.config import PRESETS
from utils.costs import training_flops
from utils.evidence.cost import LLAMA, MODEL

# show: utils.evidence.cost.llama_flops

# %% [markdown]
# `print_findings` settles claims now: what a primary source says, what the function found, and the
# verdict that follows:

# %%
from utils.claims_table import print_findings

findings = print_findings(1, 2)

# %% [markdown]
# Right in its tokens and its order of magnitude, too high by an eighth to a fifth, and "at least"
# makes that an overstatement. On claim 2 the article is half right: of the bill for a *run*,
# electricity is small and hardware nearly all. But a new model also needs its researchers, and by
# Epoch's estimate they are 29 to 49 % of a frontier model's cost.
#
# ## 4. Sixteen bits
#
# Does it perform fewer calculations, and does it stop over-allocating? torch's counter and the
# bills of lesson 02, to the byte:

# %%
findings |= print_findings(3, 4)
for case, is_true in findings[3].cases.items():
    print(f"   less memory, {case}: {is_true}")

# %% [markdown]
# What stays never shrinks. Activations do, unless the batch is so small that the 16-bit copies of
# the weights outweigh them: GPT-2 with 1.5 billion parameters and one sequence keeps *more*. That
# is the condition. And no FLOP disappears, so claim 4 is wrong as a reason, though its result,
# speed, can be real. How large can it be? On how many of the table's GPUs can 16 bits be 6 times
# as fast as fp32 at all, in percent?

# %%
guess_share = 100  # your prediction

# %% [markdown]
# No step gains more than the ratio of the chip's peaks:

# %%
findings |= print_findings(5, 6)
over_fp32 = [is_true for name, is_true in findings[5].cases.items() if name.endswith("fp32")]
over_tf32 = [is_true for name, is_true in findings[5].cases.items() if name.endswith("TF32")]
reveal("Chips with a ceiling of 6", guess_share, 100 * sum(over_fp32) / len(over_fp32), "%")
print(f"over TF32: {sum(over_tf32)} of {len(over_tf32)}")

# %% [markdown]
# So 6 is possible where the chip is a data centre's and the baseline true fp32. (That is torch's
# default for products, `torch.backends.cuda.matmul.allow_tf32 = False`; one line changes it, and
# with it the factor.) Peaks are not steps, though: norms and softmax wait for memory. A whole step
# of GPT-2, by each chip's roofline:

# %%
from utils.speed_up_plot import show_speed_ups

show_speed_ups("gpt2-124m", 8)

# %% [markdown]
# Against true fp32 the article's 6 is within reach on NVIDIA's A100 and its successors, and not
# quite on a V100 under autocast, where 5.5 is what was published. On TPUs products are in bf16 by
# default; what remains are the bytes, a factor below 2, and the publishers' own figure is 60 %. And
# this machine? A GPT step in both precisions, in turn, and what `make record` has:

# %%
from utils.experiments.precision import step_sweep
from utils.measured import measured, measured_where
from utils.recorded import load_recorded, show_recorded
from utils.timing import use_one_thread

use_one_thread()
seconds = {row["precision"]: row["seconds"] for row in step_sweep("cpu")}
speed_here = seconds["fp32"] / seconds["bf16"]
print("bf16 over fp32:", measured(speed_here, "x"), measured_where())

def speed_row(run):
    by_name = {row["precision"]: row["seconds"] for row in run.experiments["step_precision"]}
    return run.label, *(f"{by_name['fp32'] / by_name[name]:.2f}" if name in by_name else "-"
                        for name in ("tf32", "bf16", "fp16"))

runs = load_recorded("step_precision")
headers = ("device", "tf32", "bf16", "fp16")
show_recorded("Recorded: a GPT step, times as fast as true fp32", headers, map(speed_row, runs),
              [run.kind for run in runs])

# %% [markdown]
# Next, accuracy. Four of lesson 03's set-ups in real fp16: O1, O2, O2 without a loss scale, and O3.
# They train for 40 steps on the same batches, with a loss that counts as one of 4,096 micro-batches.
# Which of the four will stay within 0.1 nats of fp32?

# %%
findings |= print_findings(7, 8)

# %% [markdown]
# "No loss of accuracy" is a promise of masters and loss scaling, not of 16 bits. And APEX *was* the
# way to them; the article recommended it almost two years after it had been deprecated, and today's
# reader does not find it any more.
#
# ## 5. Checkpoints
#
# "Computations to a minimum": five ways to checkpoint every block of a small GPT, under torch's
# counter. What does the cheapest of them add?

# %%
findings |= print_findings(9)
for case, is_true in findings[9].cases.items():
    print(f"   no more FLOPs than without, {case}: {is_true}")

# %% [markdown]
# Wrong as it was read: *activations* are kept to a minimum, and computations are what is paid for
# it. How much memory does that buy? The article's 70 % is an "up to". What will the best of five
# whole training steps save?

# %%
guess_saved = 70  # your prediction, in percent of the peak

# %% [markdown]
# By the pencil that lesson 04 checked to the byte:

# %%
from utils.evidence.checkpointing import saved_percent

findings |= print_findings(10)
saved = saved_percent()
for name, percent in saved.items():
    print(f"   {name}: {percent:.0f} %")
reveal("At best", guess_saved, max(saved.values()), "%")

# %% [markdown]
# Here the article promises too *little* for some models, and far too much for others. One number
# cannot do; the bill of lesson 01 can. Now the price. Published times for full checkpoints lie
# between 20 and 30 %, and FLOPs explain them. Timed here, plain and checkpointed in turn:

# %%
from utils.checkpoint_steps import AdamStep
from utils.corpus import load_corpus
from utils.model import build_gpt
from utils.techniques.segments import segments
from utils.timing import compare

findings |= print_findings(11, 12)
deep = PRESETS["laptop-deep"]
step = AdamStep(build_gpt(deep), load_corpus().batch(0, 4, deep.context_length))
plans = {"plain": tuple(range(16)), "checkpointed": segments([1] * 16)}
timed = compare({name: lambda plan=plan: step(plan) for name, plan in plans.items()}, repeats=5)
print("checkpointed against plain:", measured(timed.sentence("checkpointed", "plain")))

# %% [markdown]
# Claim 11 is a fair range for *full* checkpoints that stop early. (Fused attention makes the plain
# step shorter and the share longer: lesson 04.) But the 70 % beside it belongs to *selective* ones
# (lesson 05), whose price is under 5 %: the sentence pairs one technique's saving with another
# one's cost. Claim 12 simply holds.
#
# ## 6. Many GPUs
#
# The article compares GPUs to bakers of a cake. Are more of them faster, and are they cheaper?
# GPT-2 with 1.5 billion parameters and one batch of 256 sequences on 8, 16, 64 and 256 H100s,
# simulated on three networks (half of peak assumed):

# %%
from utils.evidence.many_gpus import FEW, scaled
from utils.measured import table

rows = []
for network, points in scaled().items():
    times = [f"{point.step_s / points[FEW].step_s:.2f}" for point in points.values()]
    rents = [point.gpu_hours_per_billion_tokens for point in points.values()]
    rows.append((network, *times, *(f"{rent / rents[0]:.1f}" for rent in rents)))
headers = ["network", *(f"time, {n}" for n in points), *(f"rent, {n}" for n in points)]
table(headers, rows, "Strong scaling, over 8 GPUs")
findings |= print_findings(13, 14)

# %% [markdown]
# Time falls on a good network and *rises* on a bad one (10 Gbit/s); rent never falls, anywhere. In
# the published run claim 13 holds nearly in full, 42.9 times the speed for 48 times the GPUs, and
# claim 14 fails by 12 %. Several GPUs buy time, or the room for a model that fits on no single one.
#
# Now the three libraries. The same GPT, seed and batches on two ranks: what differs in loss, bytes
# held, bytes sent?

# %%
from utils.peers.our_yafsdp import yafsdp_system
from utils.peers.ours import fsdp_system, zero_system
from utils.peers.table import compare as compare_systems
from utils.peers.table import print_comparison

systems = {"ZeRO-3": zero_system(3), "FSDP": fsdp_system(), "YaFSDP": yafsdp_system()}
print_comparison(compare_systems(systems, 2), caption="Five steps on two ranks, fp32")

# %% [markdown]
# One training, three times, from the same seed to the same loss. (Four blocks make YaFSDP's buffers
# look large; lesson 09. Beside DeepSpeed and PyTorch's FSDP2 themselves: lessons 07 and 08.) Where
# should 15-20 % come from? And against what is DeepSpeed 10 times as fast?

# %%
findings |= print_findings(15, 16)

# %% [markdown]
# The 10 has a source, and a baseline that nobody would call traditional: tensor parallelism across
# servers. For 15-20 % we could find no source; for 2.1 % there is one. And YaFSDP, which published
# its whole table, by tokens per GPU:

# %%
from utils.yafsdp_table import load_yafsdp_published

findings |= print_findings(17, 18)
for tokens in (2048, 4096, 8192):
    rows = [row.speedup_percent for row in load_yafsdp_published() if row.sequence_length == tokens]
    print(f"   {tokens:,} tokens: {sum(10 <= percent <= 25 for percent in rows)} of {len(rows)}")

# %% [markdown]
# For claim 18 silence is the right answer: we found no publication with all three on one machine,
# and a processor cannot stand in for 256 GPUs. FSDP1, which YaFSDP beat, is deprecated by now.
# NVIDIA's Megatron-FSDP, which has an option for the same two buffers, claims up to 25 % over FSDP2
# (package page and documentation, read 2026-11-23).
#
# ## 7. Hardware and rent
#
# The article advises newer and custom chips, and rented ones. What is each for, and can one have
# it?

# %%
from utils.named_hardware import NAMED_HEADERS, named_rows

table(NAMED_HEADERS, named_rows(), "The hardware that the article names")
findings |= print_findings(19)

# %% [markdown]
# Of the eight chips that were there before the article, three only serve models that others have
# trained. What decides about a chip is not its name but two rates and your model. Any chip of the
# table, any precision: where do 16 bits stop helping?

# %%
from utils.roofline_explorer import roofline_explorer

roofline_explorer()

# %% [markdown]
# And the rent? The article sends its readers to rental markets (which one, the paraphrase garbles;
# probably vast.ai). Sound advice: one chip had many prices on one day. Where is a useful
# FLOP cheapest?

# %%
from utils.price_plots import show_price_spread

show_price_spread()
findings |= print_findings(21)

# %% [markdown]
# Two of the article's techniques can be worth more than the choice of the shop, each against one
# baseline only: true fp32, and layers cut over servers. (A cheap FLOP that cannot reach the next
# GPU trains no large model; the table has no network.)
#
# ## 8. What the article leaves out
#
# Kernels, for one. Explicit and fused attention on this core, the same numbers from both: what
# happens when sequences grow?

# %%
from utils.experiments.software import ATTENTION_HEADERS, attention_rows

table(ATTENTION_HEADERS, attention_rows(), "A GPT step with 1,024 tokens, cut into sequences")

# %% [markdown]
# No accuracy lost, and neither hardware nor precision changed. Algorithms, for another: the same
# small GPT until it reaches one validation loss. AdamW with torch's own learning rate sets the
# target; AdamW and Muon with rates chosen by a search (in `make record`) follow. How many fewer
# tokens will the better of the two need?

# %%
guess_fewer = 1.2  # your prediction: times fewer tokens

# %% [markdown]
# Some seconds of training:

# %%
from utils.experiments.software import RACE_HEADERS, race, race_rows

racers = race(load_corpus())
table(RACE_HEADERS, race_rows(racers), "Until the same validation loss")
tokens_to_loss = [racer.tokens for racer in racers.values()]
reveal("Fewer tokens", guess_fewer, tokens_to_loss[0] / min(filter(None, tokens_to_loss)), "times",
       is_measured=True)

# %% [markdown]
# A learning rate and a few lines of optimizer do what libraries were asked for. It is a small model
# and a short race, so take the direction and not the size. Full-size runs, the compiler (too slow
# for a cell) and the course's own targets, as far as anybody has recorded them:

# %%
from utils.experiments.software import (ALGORITHM_HEADERS, COMPILE_HEADERS, algorithm_rows,
                                        compile_rows)
from utils.experiments.targets import print_targets

for name, headers, rows_of in (("compile", COMPILE_HEADERS, compile_rows),
                               ("algorithms", ALGORITHM_HEADERS, algorithm_rows)):
    runs = load_recorded(name)
    show_recorded(f"Recorded: {name}", headers, rows_of(runs), [run.kind for run in runs])
print_targets()

# %% [markdown]
# All levers on one axis, those of the article and those it leaves out. Which ones would you pull
# first?

# %%
from utils.levers import LEVER_HEADERS, draw_levers, lever_rows
from utils.plots import new_figure, show

table(LEVER_HEADERS, lever_rows(), "What divides the bill, and by how much")
figure = new_figure(8.6, 5.8)
draw_levers(figure.subplots())
show(figure, "Levers", "Of seconds, better algorithms divide most; of dollars, all progress since "
     "2019 and then the place where one rents; YaFSDP and FSDP over DeepSpeed hardly show.")
findings |= print_findings(20)

# %% [markdown]
# ## 9. Twenty-one verdicts
#
# Everything in one table. The last column leads to the lesson and section that measured it.
# (JupyterLab opens a notebook at its top; click the link once more, and it goes to the section.)
# Here it is:

# %%
from utils.claims_table import show_verdicts

show_verdicts(load_claims(), findings, "The article, checked")

# %% [markdown]
# The same where it is a matter of numbers:

# %%
from utils.claims_plot import draw_ranges, reading

more_percent = 100 * (timed.ratio("checkpointed", "plain") - 1)
figure = new_figure(10.5, 5.2)
draw_ranges(figure, load_claims(), findings,
            {5: Span.of(speed_here), 11: Span.of(more_percent)})
show(figure, "Claimed, sourced, computed", reading(load_claims()))

# %% [markdown]
# How many hold as they stand, and how did you do?

# %%
from utils.claims_table import compare_guesses, count_verdicts

counts = count_verdicts(findings.values())
print(*(f"{verdict}: {number}" for verdict, number in counts.items()), sep=", ")
reveal("Hold as they stand", guess_holding, counts["holds"], "of 21")
print("you and the evidence agree on", compare_guesses(my_verdicts, findings), "of 6")

# %% [markdown]
# Do not read this as "the article is worthless". Most claims hold under a condition that can be
# said in a line, and the advice survives the check: use 16 bits, checkpoint when memory is short,
# shard what does not fit, rent with care. What does not survive are numbers without their
# baselines.
#
# And the bill of section 1? Lesson 10's planner predicts bytes, messages and seconds instead of
# multiplying promises. On 1,024 A100s (Meta's number is not known) with 4 million tokens a step:

# %%
from utils.planner import PlanRequest, plan

request = PlanRequest("llama2-70b-shape", run.tokens, "A100 80GB", num_gpus=1024,
                      sequences_per_step=1024, methods=("fsdp",))
planned = 24 * request.num_gpus * plan(request).best.days
print(f"taken: {run.gpu_hours:,.0f} hours")
for name, number in (("believed", hours), ("planned", planned)):
    print(f"{name}: {number:,.0f} hours, {number / run.gpu_hours - 1:+.0%}")
got = a100.peak_flops("bf16") / a100.peak_flops("fp32")
print(f"16 bits over fp32, by peaks: {got:.0f} times; the article: {believed[0]:.0f}")

# %% [markdown]
# A prediction from bytes and FLOPs misses by a tenth where the promises miss by four fifths. (Two of
# its constants were fitted to other published runs, this model among them; lesson 10.) Of the 90
# times, 16 bits brought 16, more than promised; the other three factors could only raise the
# utilisation.
#
# ## 10. When it does not pay
#
# - **When the decision is the same either way.** Whether 16 bits bring 2x or 6x, you will use them.
# - **When measuring is cheaper than reading.** An hour on one GPU settles your case better than any
#   table, this one included.
# - **When the source is as old as the claim.** Each row has a date; prices age in weeks, libraries
#   in months, FLOPs not at all.

# %% [markdown]
# ## Takeaways
#
# - Ask of every factor: over what, on which chip, for which model, measured by whom, and when?
# - "Up to" is one case; the median is your case more often.
# - Multiplied promises end in a budget that is several times too small.
# - Memory claims depend on what dominates the bill, speed claims on the baseline.
# - Not in the article: a better algorithm, up to 36.6 times, and another price for the same GPU,
#   4.6.
#
# **Next:** your own model: [lesson 10](10_all_together.ipynb) plans it, `make record` measures your
# machine, and what you find out about a claim that is open here is welcome.
