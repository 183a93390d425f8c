"""The text that all ranks train on, whole, checked, and the same everywhere.

How it works: as `utils.corpus`, without its limit of some megabytes. Every rank reads it and all
compare the checksum, for a file of the same name on two machines need not be the same.

Left out: text that does not fit into memory.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from utils.corpus import MAX_BYTES, Corpus, load_corpus
from utils.peers.agree import from_all
from utils.trainer.group import together
from utils.trainer.settings import RunSettings, TrainerError


def text_of(settings: RunSettings) -> tuple[Corpus, str]:
    """The whole text, the same on all ranks, long enough to train and to validate on."""
    corpus = together(lambda: _load(settings))
    sha256 = hashlib.sha256(torch.cat([corpus.train_N, corpus.validation_N]).numpy()).hexdigest()
    if len(set(from_all(sha256))) > 1:
        raise TrainerError("The ranks read different texts: give all machines the same --text.")
    return corpus, sha256


def _load(settings: RunSettings) -> Corpus:
    path = None if settings.text is None else Path(settings.text)
    try:
        corpus = load_corpus(path, MAX_BYTES if path is None else max(MAX_BYTES, _size(path)))
    except (OSError, ValueError) as error:
        raise TrainerError(str(error).replace("give load_corpus", "give --text")) from None
    for split in ("train", "validation"):
        corpus.batch(0, 1, settings.config.context_length, split)
    return corpus


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(each.stat().st_size + 1 for each in files if each.is_file())
