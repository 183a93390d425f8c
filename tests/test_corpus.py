"""Real text, the same batch for the same number, and one clear sentence when there is none."""

import os

import pytest
import torch

from utils.corpus import load_corpus


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(max_bytes=300_000)


def test_the_standard_library_is_real_python_text(corpus):
    text = bytes(corpus.train_N.tolist()).decode("utf-8", errors="replace")
    assert "def " in text and "import " in text
    assert len(corpus.train_N) + len(corpus.validation_N) == 300_000
    assert len(corpus.validation_N) == 30_000


def test_reading_twice_gives_the_same_bytes(corpus):
    again = load_corpus(max_bytes=300_000)
    assert torch.equal(corpus.train_N, again.train_N)
    assert torch.equal(corpus.validation_N, again.validation_N)


def test_targets_are_the_tokens_one_byte_later(corpus):
    tokens_BT, targets_BT = corpus.batch(3, 4, 32)
    assert tokens_BT.shape == targets_BT.shape == (4, 32)
    assert tokens_BT.dtype == torch.int64
    assert torch.equal(tokens_BT[:, 1:], targets_BT[:, :-1])


def test_a_batch_depends_on_its_number_seed_and_split_only(corpus):
    torch.manual_seed(0)
    first, _ = corpus.batch(1, 2, 16)
    torch.manual_seed(99)
    assert torch.equal(first, corpus.batch(1, 2, 16)[0])
    for other in (corpus.batch(2, 2, 16), corpus.batch(1, 2, 16, seed=1)):
        assert not torch.equal(first, other[0])
    assert not torch.equal(first, corpus.batch(1, 2, 16, "validation")[0])


def test_ones_own_file_and_folder(tmp_path):
    text = "all work and no play\n" * 100
    (tmp_path / "b.txt").write_text(text)
    assert bytes(load_corpus(tmp_path / "b.txt").train_N.tolist()).startswith(b"all work")
    (tmp_path / "a.py").write_text("first = 1\n" * 200)
    assert bytes(load_corpus(tmp_path).train_N.tolist()).startswith(b"first")


def test_missing_empty_and_short_texts_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nothing\.txt"):
        load_corpus(tmp_path / "nothing.txt")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match=r"empty\.txt has 0 bytes; training needs at least"):
        load_corpus(tmp_path / "empty.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="has 0 bytes"):
        load_corpus(tmp_path / "folder")
    (tmp_path / "short.txt").write_text("x" * 1200)
    with pytest.raises(ValueError, match="too short for context_length=2000"):
        load_corpus(tmp_path / "short.txt").batch(0, 1, 2000)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("x" * 5000)
    secret.chmod(0)
    with pytest.raises(OSError, match="cannot be read"):
        load_corpus(secret)
