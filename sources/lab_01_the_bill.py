# %% [markdown]
# # Lab 01: write the bill yourself
#
# Five exercises on [lesson 01](../notebooks/01_the_bill.ipynb), about 70 minutes. Complete each
# function and run the check right below it. The checks measure: they build models that you have
# not seen and hold your answer against the meter. Run All works at any time; what you have not
# touched says *not attempted yet*. Stuck? Remove the `#` before a `hint`; a second, longer one is
# `hint("01.1", 2)`.

# %% [markdown]
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# You may use any of these:

# %%
import torch

from utils.checks import check, hint, progress
from utils.config import PRESETS, GPTConfig
from utils.costs import count_parameters
from utils.measured import table
from utils.model import build_gpt, next_token_loss
from utils.plots import bytes_text
from utils.predict import head_activation_bytes, predict_step, saved_activation_bytes
from utils.saved import saved_for_backward
from utils.timing import use_one_thread

use_one_thread()

# %% [markdown]
# ## Exercise 01.1: the bill of fine-tuning
#
# *difficulty 1/5 - 10 minutes*
#
# In fine-tuning, most of the model is often frozen: only the last blocks learn. How many bytes does
# the model hold at the end of a step then, in fp32 with Adam?

# %%
def fine_tuning_bytes(config: GPTConfig, num_trainable_blocks: int) -> float:
    """Bytes of weights, gradients and Adam state when only the last blocks are trained.

    All other parameters (embeddings, earlier blocks, last norm, output layer) are frozen.
    Activations do not count.
    """
    ### BEGIN SOLUTION
    counts = count_parameters(config)
    trainable = num_trainable_blocks * counts.block
    weights, gradients, adam = 4 * counts.total, 4 * trainable, 8 * trainable
    return weights + gradients + adam
    ### END SOLUTION

# %% [markdown]
# Does the meter agree, within 0.5 %?

# %%
check("01.1", fine_tuning_bytes)
# hint("01.1")

# %% [markdown]
# ## Exercise 01.2: the peak with gradient accumulation
#
# *difficulty 3/5 - 20 minutes*
#
# When a batch does not fit, it is cut into micro-batches, whose gradients add up before one
# optimizer step. From the second micro-batch on, something is alive that the lesson's step did not
# have at that moment. Predict the peak of such a later micro-batch (forward and backward; the
# optimizer does not run, but Adam's state exists from earlier steps) within 1 %.
#
# No dropout, attention of either kind, and batches for which attention is not the peak. Think of
# two moments: the loss's own backward, and the last block's feed-forward layer.

# %%
def accumulation_peak_bytes(config: GPTConfig, micro_batch_size: int) -> float:
    """Peak live bytes of the second micro-batch of an fp32 Adam step, at full context."""
    ### BEGIN SOLUTION
    tokens = micro_batch_size * config.context_length
    held = (4 + 4 + 8) * count_parameters(config).total  # weights, gradients, Adam
    saved = saved_activation_bytes(config, micro_batch_size, config.context_length)
    head = head_activation_bytes(config, micro_batch_size, config.context_length)
    logits, hidden = 4 * tokens * config.vocab_size, 4 * tokens * config.model_dim
    wide = 4 * tokens * config.feed_forward_dim
    narrow_weight = 4 * config.model_dim * config.feed_forward_dim
    in_the_loss = saved + 2 * logits
    in_the_last_block = saved - head + hidden + wide + narrow_weight
    return held + max(in_the_loss, in_the_last_block)
    ### END SOLUTION

# %% [markdown]
# Three unseen configurations, each within 1 %?

# %%
check("01.2", accumulation_peak_bytes)
# hint("01.2")

# %% [markdown]
# ## Exercise 01.3: the largest batch that fits
#
# *difficulty 2/5 - 10 minutes*
#
# Turn the prediction around: given a budget in bytes, how many sequences of full context can one
# ordinary step of training take (forward, backward, Adam)? The lesson's `predict_step` is allowed.

# %%
def largest_batch(config: GPTConfig, budget_bytes: int) -> int:
    """The largest batch size whose predicted peak is at most `budget_bytes`; 0 if none fits."""
    ### BEGIN SOLUTION
    batch_size = 0
    while predict_step(config, batch_size + 1).peak_bytes <= budget_bytes:
        batch_size += 1
    return batch_size
    ### END SOLUTION

# %% [markdown]
# The check tries your size, and one more, with the meter running:

# %%
check("01.3", largest_batch)
# hint("01.3")

# %% [markdown]
# Once it passes, this cell asks what fits on a 24 GB card. Until then it says so:

# %%
from utils.checks.engine import judge

if judge("01.3", largest_batch).status == "passed":
    names = ("gpt2-124m", "gpt2-1.5b")
    rows = [(name, largest_batch(PRESETS[name], 24 * 10**9)) for name in names]
    table(["model", "largest batch in fp32"], rows, "On a card of 24 GB")
else:
    print("Your turn: the answer appears when exercise 01.3 passes.")

# %% [markdown]
# ## Exercise 01.4: the forgotten term
#
# *difficulty 4/5 - 20 minutes*
#
# A colleague predicts saved activations with the lesson's formula. With dropout switched on, the
# prediction is too small:

# %%
config = GPTConfig(num_layers=2, dropout=0.1, attention="explicit")
batch = torch.zeros(2, 2, 128, dtype=torch.long)
model = build_gpt(config)
saved = saved_for_backward(model, lambda: next_token_loss(model, *batch))
found, predicted = sum(t.num_bytes for t in saved), saved_activation_bytes(config, 2, 128)
print(f"found {bytes_text(found)}, predicted {bytes_text(predicted)}")

# %% [markdown]
# What did the formula forget? Look into `saved` (each entry has `layer`, `shape` and `num_bytes`),
# compare with `dropout=0.0`, and write the missing term as a formula that is exact to the byte for
# any configuration with explicit attention:

# %%
def forgotten_bytes(config: GPTConfig, batch_size: int, num_tokens: int) -> int:
    """Bytes that dropout > 0 adds to what is saved for backward, on a CPU in fp32."""
    ### BEGIN SOLUTION
    tokens = batch_size * num_tokens
    mask = 4 * tokens * config.model_dim
    attention_mask = 4 * tokens * config.num_heads * num_tokens
    per_block = 2 * mask + attention_mask + attention_mask  # the last: the weights it thinned out
    return mask + config.num_layers * per_block
    ### END SOLUTION

# %% [markdown]
# Two unseen configurations, to the byte:

# %%
check("01.4", forgotten_bytes)
# hint("01.4")

# %% [markdown]
# A GPU keeps dropout's masks as booleans, one byte each; a CPU keeps them in fp32. The pencil needs
# to know the device.
#
# ## Exercise 01.5: days and dollars
#
# *difficulty 2/5 - 10 minutes*
#
# On thousands of GPUs something fails again and again, and training falls back to its last
# checkpoint (466 interruptions in 54 days on 16,000 GPUs for Llama 3.1; Hugging Face's post on the
# paper). Write the bill of a run that loses a share of its *whole* time to such interruptions.
# Lost hours are paid like all others.

# %%
def training_bill(
    num_parameters: float,
    num_tokens: float,
    num_gpus: int,
    peak_flops_per_s: float,
    utilisation: float,
    lost_share: float,
    usd_per_gpu_hour: float,
) -> tuple[float, float]:
    """(days on the wall, dollars) by the 6ND rule; `lost_share` of the whole time is lost."""
    ### BEGIN SOLUTION
    useful_gpu_s = 6 * num_parameters * num_tokens / (peak_flops_per_s * utilisation)
    paid_gpu_hours = useful_gpu_s / (1 - lost_share) / 3600
    return paid_gpu_hours / num_gpus / 24, paid_gpu_hours * usd_per_gpu_hour
    ### END SOLUTION

# %% [markdown]
# Three runs, from GPT-2 to Llama-2-70B:

# %%
check("01.5", training_bill)
# hint("01.5")

# %% [markdown]
# ## Where you stand
#
# All five passed? Then you can price a training run before it starts, in bytes, days and dollars:

# %%
progress("lab_01")
