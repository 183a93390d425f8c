"""The trainer on ranks of `run_ranks`, which start faster than torchrun's, and short runs."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path
from typing import NamedTuple

from utils.ranks import run_ranks
from utils.recipe import TrainingRecipe
from utils.trainer.log import TrainingLog, read_log
from utils.trainer.main import main

TINY = ("--num-layers", "2", "--num-heads", "2", "--model-dim", "32", "--context-length", "32")
WORDS = "the course trains a small model on a text that it makes up as it goes along".split()


class Ended(NamedTuple):
    """What rank 0 returned and printed."""

    code: int
    out: str
    err: str


def write_text(path: Path, num_bytes: int = 20_000) -> Path:
    """The same text each time, on every Python."""
    chance, parts = random.Random(7), []
    while sum(map(len, parts)) + len(parts) <= num_bytes:
        parts.append(WORDS[int(chance.random() * len(WORDS))])
    path.write_text(" ".join(parts)[:num_bytes])
    return path


def words_of(recipe: TrainingRecipe, folder: Path, *more: object) -> list[str]:
    """A command line for a tiny model: six steps on a text beside the folder."""
    text = folder.parent / "text.txt"
    if not text.exists():
        write_text(text)
    base = ("--text", str(text), "--folder", str(folder), "--steps", "6", "--warmup-steps", "2")
    return [*recipe.flags(), *TINY, *base, *map(str, more)]


def call_main(words: list[str]) -> Ended:
    """`main` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return Ended(code, out.getvalue(), err.getvalue())


def on_rank(rank: int, world_size: int, words: list[str]) -> Ended:
    """A worker for `run_ranks`."""
    return call_main(words)


def train_on_ranks(recipe: TrainingRecipe, folder: Path, *more: object) -> list[Ended]:
    """The trainer on all ranks of the recipe; what each of them returned."""
    words = words_of(recipe, folder, *more)
    if recipe.num_ranks == 1:
        return [call_main(words)]
    return run_ranks(on_rank, recipe.num_ranks, words, timeout_s=100, quiet=True)


def log_of(recipe: TrainingRecipe, folder: Path, *more: object) -> TrainingLog:
    """The log of a run that must end well."""
    ended = train_on_ranks(recipe, folder, *more)
    assert [each.code for each in ended] == [0] * len(ended), ended
    return read_log(folder)
