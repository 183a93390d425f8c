"""What cannot be is said in one sentence with exit code 2, before the folder is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer_runs import Ended, call_main, on_rank, words_of, write_text
from utils.config import GPTConfig
from utils.ranks import run_ranks
from utils.recipe import TrainingRecipe
from utils.trainer.command import ERROR
from utils.trainer.log import read_log
from utils.trainer.settings import RunSettings, TrainerError

ALONE = TrainingRecipe()
ON_TWO = TrainingRecipe(method="zero1", library="ours", num_ranks=2, batch_size=4)

WRONG = {
    "unknown chip": (("--chip", "H1000"), "There is no chip 'H1000'; the known ones are: V100"),
    "chip without the rate": (
        ("--chip", "V100 32GB", "--precision", "bf16"), "The table has no bf16 rate for V100 32GB"),
    "unknown preset": (("--preset", "huge"), "There is no preset 'huge'; the known ones are:"),
    "no ranks": (("--num-ranks", "0"), "num_ranks must be a whole number from 1 on, not 0."),
    "other ranks": (
        ("--num-ranks", "4", "--method", "ddp"), "The recipe is for 4 ranks, but 1 is running"),
    "no torchrun": (
        ("--num-ranks", "2"),
        "start it by torchrun --standalone --local-addr localhost --nproc-per-node 2 -m utils"),
    "minus seed": (("--seed=-1",), "--seed must be at least 0 and below 2**63, not -1."),
    "long seed": (("--seed", "9" * 23), f"and below 2**63, not {'9' * 23}."),
    "no library": (("--method", "zero1"), "add --library ours or --library deepspeed."),
    "no batch": (("--batch-size", "0"), "batch_size must be a whole number from 1 on, not 0."),
    "uneven batch": (
        ("--sequences-per-step", "12"), "12 sequences a step do not divide into 1 ranks of 8"),
    "two sizes": (
        ("--sequences-per-step", "16", "--micro-batches", "4"), "needs --micro-batches 2 here"),
    "no such method": (("--method", "magic"), "method must be one of single, ddp,"),
    "fp16 and shards": (("--precision", "fp16", "--method", "fsdp"), "fp16 needs loss scaling"),
    "not that library's": (
        ("--library", "deepspeed", "--method", "ddp"), "The library deepspeed has no ddp here"),
    "heads": (("--num-heads", "3"), "model_dim (32) must be a multiple of num_heads (3)."),
    "few tokens": (("--vocab-size", "100"), "A byte needs a vocabulary of 256"),
    "rate": (("--learning-rate", "nan"), "--learning-rate must be a positive number, not nan."),
    "minus": (("--learning-rate=-1",), "--learning-rate must be a positive number, not -1.0."),
    "no steps": (("--steps", "0"), "--steps must be at least 1, not 0."),
    "no warm-up": (("--warmup-steps", "0"), "--warmup-steps must be at least 1, not 0."),
    "price": (("--usd-per-gpu-hour", "inf"), "--usd-per-gpu-hour must be a number from 0 on"),
    "word": (("--steps", "many"), "Argument --steps: invalid int value: 'many'"),
    "unknown option": (("--setps", "6"), "Unrecognized arguments: --setps 6"),
    "no text": (("--text", "nowhere.txt"), "nowhere.txt: give --text the path of a text file."),
    "long context": (("--context-length", "5000"), "too short for context_length=5000"),
    "no prediction": (("--prediction", "nowhere.json"), "The prediction nowhere.json cannot be"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_option_is_one_sentence(words: tuple, said: str, tmp_path: Path) -> None:
    ended = call_main(words_of(ALONE, tmp_path / "run", *words))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(ERROR) and said in ended.err and ended.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "has 0 bytes"), (999, "at least 1000: give --text a longer file."),
     (1001, "The validation text has 101 bytes")],
)  # fmt: skip
def test_a_text_that_is_too_short_is_refused(size: int, said: str, tmp_path: Path) -> None:
    write_text(tmp_path / "text.txt", size)
    ended = call_main(words_of(ALONE, tmp_path / "run", "--context-length", "128"))
    assert ended.code == 2 and said in ended.err


@pytest.mark.parametrize("content", ["{", "[1, 2]", '{"loss": NaN}', "\0"])
def test_a_prediction_that_is_no_json_object_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "prediction.json"
    path.write_text(content)
    ended = call_main(words_of(ALONE, tmp_path / "run", "--prediction", path))
    assert ended.code == 2 and f"The prediction {path}" in ended.err


def test_a_prediction_is_kept_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "prediction.json"
    path.write_text('{"loss": 5.0, "by": "me"}')
    words = words_of(ALONE, tmp_path / "run", "--prediction", path, "--no-memory")
    assert call_main(words).code == 0
    assert read_log(tmp_path / "run").start["prediction"] == {"loss": 5.0, "by": "me"}


def test_what_may_not_be_meant_is_noted(tmp_path: Path) -> None:
    more = ("--no-memory", "--warmup-steps", 7, "--chip", "H100 SXM")
    ended = call_main(words_of(ALONE, tmp_path / "run", *more))
    notes = [line for line in ended.out.splitlines() if line.startswith("Note: ")]
    assert ended.code == 0 and len(notes) == 2
    assert "--warmup-steps 7 is more than --steps 6" in notes[0]
    assert "runs on a CPU" in notes[1] and "--chip H100 SXM." in notes[1]
    ended = call_main(words_of(ALONE, tmp_path / "plain", "--no-memory", "--warmup-steps", 6))
    assert ended.code == 0 and "Note: " not in ended.out


def test_dropout_is_refused() -> None:
    with pytest.raises(TrainerError, match="has no dropout"):
        RunSettings(Path("x"), config=GPTConfig(dropout=0.1))


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    ended = call_main(words_of(ALONE, tmp_path / "run"))
    assert ended.code == 2 and "cannot be written" in ended.err
    assert (tmp_path / "run").read_text() == "a file"


@pytest.mark.parametrize("places", [("2", "2"), ("-1", "2"), ("a", "b"), ("0", "0")])
def test_a_place_that_is_none_is_refused(
    places: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", places[0])
    monkeypatch.setenv("WORLD_SIZE", places[1])
    ended = call_main(words_of(ALONE, tmp_path / "run"))
    assert ended.code == 2 and "are no place among ranks: let torchrun set both" in ended.err


def test_only_rank_0_speaks(tmp_path: Path) -> None:
    words = words_of(ON_TWO, tmp_path / "run", "--chip", "H1000")
    first, second = run_ranks(on_rank, 2, words, quiet=True)
    assert first.code == second.code == 2
    assert "no chip" in first.err and second.err == second.out == first.out == ""
    words = words_of(ALONE, tmp_path / "run")  # single, on two ranks
    first, second = run_ranks(on_rank, 2, words, quiet=True)
    assert first.code == second.code == 2 and "The method single is one process" in first.err


def test_ranks_with_other_texts_are_refused(tmp_path: Path) -> None:
    for rank in range(2):
        write_text(tmp_path / f"text-{rank}.txt", 20_000 + rank)
    words = words_of(ON_TWO, tmp_path / "run")
    ended = run_ranks(_with_own_text, 2, words, str(tmp_path), quiet=True)
    assert [each.code for each in ended] == [2, 2]
    assert "The ranks read different texts" in ended[0].err
    (tmp_path / "text-1.txt").unlink()
    ended = run_ranks(_with_own_text, 2, words, str(tmp_path), quiet=True)
    assert [each.code for each in ended] == [2, 2]
    assert "rank 1: There is no file or folder" in ended[0].err
    assert not (tmp_path / "run").exists()


def _with_own_text(rank: int, world_size: int, words: list[str], folder: str) -> Ended:
    return call_main([*words, "--text", f"{folder}/text-{rank}.txt"])
