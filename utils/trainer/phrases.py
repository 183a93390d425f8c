"""What `python -m utils.train --help` says of each option, its default included.

How it works: a phrase an option here, and the default from the dataclass that has it, so that the
two cannot differ. Left out: the options themselves; `utils.trainer.arguments` has them.
"""

from __future__ import annotations

from dataclasses import MISSING, fields

from utils.recipe import TrainingRecipe
from utils.trainer.settings import RunSettings

DEFAULT_PRESET = "laptop"
PHRASES = {
    "folder": "where the run's log and checkpoints go; all machines must see the same one",
    "text": "a text file or a folder of them",
    "preset": "the model's shape, which the next options change",
    "num_layers": "blocks of the model",
    "num_heads": "attention heads of a block",
    "model_dim": "width of the model, a multiple of --num-heads",
    "context_length": "tokens of a sequence",
    "vocab_size": "rows of the embedding, at least 256: a byte is a token",
    "ff_dim": "width inside the feed-forward layer (0: as the model chooses)",
    "num_kv_heads": "heads of keys and values (0: as many as --num-heads)",
    "bias": "biases in the linear layers",
    "tied_embeddings": "one matrix for the first and the last layer",
    "precision": "what the layers compute in",
    "attention": "one fused kernel, or its steps one by one",
    "checkpointing": "blocks: keep only their inputs, and run each again in backward",
    "method": "how the model is spread over ranks",
    "library": "whose code does that",
    "batch_size": "sequences that a rank sends through the model at a time",
    "micro_batches": "batches of that size whose gradients add up to one step",
    "num_ranks": "how many ranks this is meant for; refused when torchrun starts others",
    "sequences_per_step": "of all ranks together; sets --micro-batches to fit",
    "steps": "updates of the weights",
    "learning_rate": "the highest one, after the warm-up",
    "warmup_steps": "steps in which the learning rate rises to that",
    "weight_decay": "AdamW's",
    "max_gradient_norm": "longer gradients are cut to this norm",
    "seed": "of the first weights and of the batches",
    "save_every": "steps between checkpoints; the last two are kept (0: only at the end)",
    "validate_every": "steps between losses on text that is not trained on (0: only at the end)",
    "usd_per_gpu_hour": "price of one rank, for the cost of the run",
    "chip": "a row of utils/data/chips.csv whose peak MFU is a share of",
    "prediction": "a JSON file that is kept in the log, to compare the run with",
    "resume": "go on from the last good checkpoint in the folder, or begin where there is none",
    "no_memory": "leave out the two metered steps before training",
}
DEFAULTS = {
    "text": "the Python standard library's sources", "preset": DEFAULT_PRESET,
    "num_ranks": "as many as run", "micro_batches": "1, or what --sequences-per-step needs",
    "chip": "the GPU's own, or a measured product", "usd_per_gpu_hour": "no cost is told",
    "sequences_per_step": "batch size x micro-batches x ranks", "prediction": "none",
    **dict.fromkeys(("num_layers", "num_heads", "model_dim", "context_length", "vocab_size",
                     "ff_dim", "num_kv_heads", "bias", "tied_embeddings"), "the preset's"),
}  # fmt: skip
WITHOUT_DEFAULT = ("folder", "resume", "no_memory")


def phrase(name: str) -> str:
    """One option's help, with what holds without it."""
    if name in WITHOUT_DEFAULT:
        return PHRASES[name]
    return f"{PHRASES[name]} (default: {DEFAULTS.get(name, _of_dataclass(name))})"


def _of_dataclass(name: str) -> object:
    found = {
        each.name: each.default
        for kind in (RunSettings, TrainingRecipe)
        for each in fields(kind)
        if each.default is not MISSING
    }
    return found.get(name)
