"""Real text without a download: the Python standard library's own sources on this machine.

How it works: files are read as bytes in a fixed order; a byte is a token, so the vocabulary has
256 entries. The last tenth is kept for validation. A batch is a pure function of its number and a
seed, so two runs, or N ranks, see the same text. Another text comes in through one argument.

The text differs between Python versions: figures that depend on it are measured, not computed.
"""

import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

SKIPPED_FOLDERS = {"test", "tests", "site-packages", "__pycache__", "encodings", "idlelib"}
TEXT_ENDINGS = (".py", ".txt", ".md")
MAX_BYTES = 4_000_000  # enough for any run of the course, and read in a fraction of a second
VALIDATION_SHARE = 0.1
MIN_BYTES = 1_000


@dataclass(frozen=True)
class Corpus:
    """Text as byte tokens, split once: train_N and validation_N are uint8 tensors."""

    source: str
    train_N: Tensor
    validation_N: Tensor

    def batch(
        self,
        number: int,
        batch_size: int,
        context_length: int,
        split: str = "train",
        seed: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Batch `number`: tokens_BT and the same text one byte later, targets_BT, both int64."""
        text_N = {"train": self.train_N, "validation": self.validation_N}[split]
        if len(text_N) <= context_length:
            raise ValueError(
                f"The {split} text has {len(text_N)} bytes, too short for context_length="
                f"{context_length}: use a longer text or a shorter context."
            )
        generator = torch.Generator().manual_seed(hash((seed, number, split == "train")) % 2**63)
        start_B = torch.randint(len(text_N) - context_length, (batch_size,), generator=generator)
        index_BT = start_B[:, None] + torch.arange(context_length + 1)
        window_BT = text_N[index_BT].long()
        return window_BT[:, :-1].contiguous(), window_BT[:, 1:].contiguous()


def load_corpus(path: str | Path | None = None, max_bytes: int = MAX_BYTES) -> Corpus:
    """The standard library's sources, or one file (or folder of .py/.txt/.md files) of your own."""
    root = Path(path) if path is not None else Path(sysconfig.get_paths()["stdlib"])
    text = _read(root, max_bytes)
    if len(text) < MIN_BYTES:
        raise ValueError(
            f"The text in {root} has {len(text)} bytes; training needs at least {MIN_BYTES}: "
            "give load_corpus a longer file."
        )
    data_N = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    cut = int(len(data_N) * (1 - VALIDATION_SHARE))
    source = str(root) if path is not None else "the Python standard library"
    return Corpus(source, data_N[:cut], data_N[cut:])


def _read(root: Path, max_bytes: int) -> bytes:
    """Up to `max_bytes` of one file, or of a folder's text files in a fixed order."""
    try:
        if root.is_file():
            with root.open("rb") as file:
                return file.read(max_bytes)
        if not root.is_dir():
            raise FileNotFoundError
        return _read_folder(root, max_bytes)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no file or folder {root}: give load_corpus the path of a text file."
        ) from None
    except OSError as error:
        raise OSError(f"{root} cannot be read ({error.strerror}): check its permissions.") from None


def _read_folder(root: Path, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for file in _text_files(root):
        if size >= max_bytes:
            break
        parts.append(file.read_bytes())
        size += len(parts[-1]) + 1
    return b"\n".join(parts)[:max_bytes]


def _text_files(root: Path) -> list[Path]:
    """Text files below `root`, sorted by name, tests and generated tables left out."""
    found: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS]
        found += [Path(folder, name) for name in names if name.endswith(TEXT_ENDINGS)]
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())
