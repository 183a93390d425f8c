# %% [markdown]
# # Lab 02: decide, cache and bill your own casts
#
# Five exercises on [lesson 02](../notebooks/02_manual_autocast.ipynb), about 70 minutes. Complete
# each function and run the check right below it. The checks bring operations and shapes that you
# have not seen, count your casts and read the bytes off autograd. Run All works at any time; what
# you have not touched says *not attempted yet*. Stuck? Remove the `#` before a `hint`.

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
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from utils.checks import check, hint, progress
from utils.config import PRESETS, GPTConfig
from utils.measured import table
from utils.predict import saved_activation_bytes
from utils.predict_autocast import autocast_saved_bytes, weight_copy_bytes
from utils.saved import saved_bytes, saved_for_backward
from utils.techniques.autocast import ManualAutocast
from utils.techniques.autocast_rules import CUDA_RULES
from utils.timing import use_one_thread

use_one_thread()

# %% [markdown]
# ## Exercise 02.1: choose the list
#
# *difficulty 3/5 - 20 minutes*
#
# A new operation has no name that autocast knows. Which list should it join? Decide by experiment,
# asking in this order:
#
# 1. **fp32**, if 16 bits spoil it. Run it on 16-bit inputs, and on *the same rounded values* in
#    fp32: the largest error may be 8 epsilons of the format times the largest exact result.
# 2. **16 bits**, if it is a product: `FlopCounterMode` counts FLOPs, and those are where speed is.
# 3. **widest**, if it raises a `RuntimeError` when its first input is fp32 and the others are not.
# 4. **none** otherwise: it may run in whatever comes.

# %%
def choose_list(operation: Callable, inputs: list[Tensor], low_dtype: torch.dtype) -> str:
    """One of "fp32", "16 bits", "widest", "none", decided by running `operation(*inputs)`.

    `inputs` are fp32 tensors (the first one always is) and integers; integers are never cast.
    """
    ### BEGIN SOLUTION
    low = [t.to(low_dtype) if t.is_floating_point() else t for t in inputs]
    high = [t.float() if t.is_floating_point() else t for t in low]
    exact = operation(*high)
    error = (operation(*low).float() - exact).abs().max()
    limit = 8 * torch.finfo(low_dtype).eps * exact.abs().max()
    if not error <= limit:  # also when the error is nan
        return "fp32"
    with FlopCounterMode(display=False) as counter:
        operation(*low)
    if counter.get_total_flops() > 0:
        return "16 bits"
    try:
        operation(inputs[0], *low[1:])
    except RuntimeError:
        return "widest"
    return "none"
    ### END SOLUTION

# %% [markdown]
# Nine operations that it has not seen. Does it run the experiment, and choose right?

# %%
check("02.1", choose_list)
# hint("02.1")

# %% [markdown]
# Does your experiment agree with the people who wrote CUDA's lists? Three operations on harmless
# numbers, and `exp` on large ones. An experiment speaks for its own inputs; a list has to hold for
# the worst ones:

# %%
generator = torch.Generator().manual_seed(0)
x, y = torch.randn(2, 32, generator=generator)
cases = {"dot": [torch.dot, x, y], "softplus": [F.softplus, x], "exp": [torch.exp, x]}
cases["exp of large numbers"] = [torch.exp, 10 + 5 * x.abs()]
lists = {"16 bits": CUDA_RULES.low, "fp32": CUDA_RULES.fp32, "widest": CUDA_RULES.widest}

def list_or_none(operation, *inputs):
    try:
        return choose_list(operation, list(inputs), torch.float16)
    except NotImplementedError:
        return "your turn"

def cudas_list(name):
    return next(each for each, names in lists.items() if name.split()[0] in names)

rows = [(name, list_or_none(*case), cudas_list(name)) for name, case in cases.items()]
table(["operation in fp16", "your experiment", "CUDA's list"], rows, "Harmless and harmful inputs")

# %% [markdown]
# ## Exercise 02.2: a cache for micro-batches
#
# *difficulty 4/5 - 20 minutes*
#
# The lesson's copies of weights die with the outermost context. With gradient accumulation each
# micro-batch has its own context, so every weight is cast again for each of them, although it
# changes only when the optimizer steps. Write casts whose copies live exactly that long:

# %%
def make_cast(optimizer: torch.optim.Optimizer, low_dtype: torch.dtype) -> Callable:
    """A function `cast(tensor)`: the tensor in `low_dtype`, integers and fp64 unchanged.

    A weight (an fp32 leaf that wants a gradient) is cast once between two steps of `optimizer`,
    any optimizer; copies are dropped at the step. All else is cast anew and not kept. Gradients
    reach the weight, also when it was cast under `torch.no_grad()` before.
    """
    ### BEGIN SOLUTION
    copies = {}
    optimizer.register_step_post_hook(lambda *_: copies.clear())

    def cast(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.dtype in (torch.float64, low_dtype):
            return tensor
        is_weight = tensor.dtype == torch.float32 and tensor.is_leaf and tensor.requires_grad
        if not is_weight:
            return tensor.to(low_dtype)
        key = id(tensor), torch.is_grad_enabled()
        if key not in copies:
            copies[key] = tensor, tensor.to(low_dtype)  # the tensor too: its id stays taken
        return copies[key][1]

    return cast
    ### END SOLUTION

# %% [markdown]
# The price is 2 bytes per parameter that live during the whole step; autocast's copies go after
# each
# micro-batch. Gradients, number of casts and living bytes, with two optimizers:

# %%
check("02.2", make_cast)
# hint("02.2")

# %% [markdown]
# ## Exercise 02.3: the bill of a gated layer
#
# *difficulty 3/5 - 10 minutes*
#
# Llama's feed-forward layer is not in the lesson's formulas:

# %%
# show: utils.checks.truth_02.GatedFeedForward

# %% [markdown]
# Several micro-batches run through it inside one `ManualAutocast` context; then one backward
# follows. How many bytes are kept for it? The fp32 input comes from an earlier layer: it needs a
# gradient itself, but is no leaf.

# %%
def gated_layer_bytes(
    num_tokens: int, model_dim: int, hidden_dim: int, num_micro_batches: int
) -> int:
    """Bytes kept for backward under the CPU's rules, copies of weights included.

    `num_tokens` is the size of one micro-batch. The fp32 weights themselves do not count.
    """
    ### BEGIN SOLUTION
    per_token = 2 * model_dim + 4 * hidden_dim  # input twice; gate, silu, value, their product
    weight_copies = 3 * model_dim * hidden_dim
    return 2 * (num_micro_batches * num_tokens * per_token + weight_copies)
    ### END SOLUTION

# %% [markdown]
# Three unseen layers, to the byte (`torch.autocast` keeps the same ones):

# %%
check("02.3", gated_layer_bytes)
# hint("02.3")

# %% [markdown]
# ## Exercise 02.4: the batch that pays
#
# *difficulty 3/5 - 10 minutes*
#
# Copies of weights cost the same at every batch size, activations grow with it. From which batch on
# does autocast take a given share of the saved bytes away? Some shares no batch reaches, and a loop
# that waits for them never ends. The lesson's formulas are allowed.

# %%
def least_batch(config: GPTConfig, num_tokens: int, share: float) -> int:
    """The smallest batch with at least `share` fewer bytes saved for backward than in fp32.

    Sequences have `num_tokens` tokens; CPU rules, no dropout. 0 if no batch gets there.
    """
    ### BEGIN SOLUTION
    def bills(batch_size: int) -> tuple[int, int]:
        low = autocast_saved_bytes(config, batch_size, num_tokens)
        return low, saved_activation_bytes(config, batch_size, num_tokens)

    (low_1, full_1), (low_2, full_2) = bills(1), bills(2)
    if share >= 1 - (low_2 - low_1) / (full_2 - full_1):  # what each further sequence saves
        return 0
    batch_size, low, full = 1, low_1, full_1
    while low > (1 - share) * full:
        batch_size += 1
        low, full = bills(batch_size)
    return batch_size
    ### END SOLUTION

# %% [markdown]
# The check reads the bytes off autograd, at your size and at one fewer:

# %%
check("02.4", least_batch)
# hint("02.4")

# %% [markdown]
# Once it passes, this cell asks it about larger models. What keeps GPT-2, with its 50,257 tokens,
# from saving 40 %?

# %%
def batch_or_none(name, share):
    config = PRESETS[name]
    try:
        return least_batch(config, config.context_length, share) or "never"
    except NotImplementedError:
        return "your turn"

rows = [(name, *(batch_or_none(name, share) for share in (0.0, 0.2, 0.4)))
        for name in ("laptop", "gpt2-124m")]
table(["model", "not more bytes", "20 % fewer", "40 % fewer"], rows, "Least batch, full context")

# %% [markdown]
# ## Exercise 02.5: a function that stays in fp32
#
# *difficulty 2/5 - 10 minutes*
#
# Some functions must compute in fp32, whoever calls them: a router, a loss, a norm of your own.
# Write the decorator, for our autocast and for torch's on a CPU, switched on or not:

# %%
def always_in_fp32(function: Callable) -> Callable:
    """`function`, but it runs without autocast and its bf16 and fp16 tensors come in as fp32.

    Positional and keyword arguments; other dtypes and values are handed on as they are. Gradients
    reach the inputs. After a call or an exception the surrounding autocast goes on.
    """
    ### BEGIN SOLUTION
    def raised(value):
        is_low = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
        return value.float() if is_low else value

    @functools.wraps(function)
    def in_fp32(*args, **kwargs):
        with ManualAutocast(enabled=False), torch.autocast("cpu", enabled=False):
            named = {name: raised(value) for name, value in kwargs.items()}
            return function(*map(raised, args), **named)

    return in_fp32
    ### END SOLUTION

# %% [markdown]
# Five surroundings, two mixtures of dtypes, and an exception:

# %%
check("02.5", always_in_fp32)
# hint("02.5")

# %% [markdown]
# ## Where you stand
#
# All five passed? Then you can say for any operation and layer what autocast should do and costs:

# %%
progress("lab_02")
