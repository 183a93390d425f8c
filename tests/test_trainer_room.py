"""A recipe that cannot fit is refused with both numbers before anything is claimed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainer_runs import call_main, words_of
from utils.config import PRESETS, GPTConfig
from utils.costs import count_parameters
from utils.recipe import TrainingRecipe
from utils.trainer import room
from utils.trainer.command import ERROR
from utils.trainer.room import available_bytes, check_room, rank_bytes
from utils.trainer.settings import TrainerError

CPU, CONFIG = torch.device("cpu"), GPTConfig(num_layers=2)
FSDP = TrainingRecipe(method="fsdp", num_ranks=2)
MEMINFO = "MemTotal:  9000000 kB\nMemAvailable:    5000000 kB\n"


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def group(folder: Path, names: tuple[str, str], limit: object, usage: int, cache: int) -> None:
    """A control group's files."""
    for name, value in zip(names, (limit, usage), strict=True):
        write(folder / name, value)
    write(folder / "memory.stat", f"anon 7\nactive_file {cache}\ninactive_file {cache}")


def test_too_large_a_model_is_one_sentence_and_claims_nothing(tmp_path: Path) -> None:
    shape = ("--num-layers", "900", "--model-dim", "40000", "--num-heads", "100")
    ended = call_main(words_of(TrainingRecipe(), tmp_path / "run", *shape))
    assert (ended.code, ended.out) == (2, "") and ended.err.count("\n") == 1
    assert ended.err.startswith(f"{ERROR}The recipe needs ") and " GB free: take a" in ended.err
    assert not (tmp_path / "run").exists()


def test_what_fits_to_the_byte_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = rank_bytes(FSDP, CONFIG, "gloo")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(room, "available_bytes", lambda: 2 * needed)
    check_room(FSDP, CONFIG, CPU)
    monkeypatch.setattr(room, "available_bytes", lambda: 2 * needed - 1)
    with pytest.raises(TrainerError, match=r"\(2 ranks of 0\.\d+ GB, as predicted\), and this ma"):
        check_room(FSDP, CONFIG, CPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # the other rank is on another machine
    check_room(FSDP, CONFIG, CPU)
    monkeypatch.setattr(room, "available_bytes", lambda: None)  # unknown: nothing to refuse
    check_room(FSDP, PRESETS["llama2-70b-shape"], CPU)


def test_a_gpu_is_asked_for_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    needed, gpu = rank_bytes(FSDP, CONFIG, "nccl"), torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")  # each has a GPU
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (needed - 200, 10**12))
    check_room(FSDP, CONFIG, gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (needed - 201, 10**12))
    with pytest.raises(TrainerError, match="and this GPU has"):
        check_room(FSDP, CONFIG, gpu)


def test_a_rank_begins_with_the_whole_model() -> None:
    many = TrainingRecipe(method="zero3", library="ours", num_ranks=512, batch_size=1)
    config = replace(PRESETS["llama2-7b-shape"], context_length=8)
    whole_bytes = 4 * count_parameters(config).total
    assert rank_bytes(many, config, "gloo") == whole_bytes
    assert rank_bytes(TrainingRecipe(), config, "gloo") > 4 * whole_bytes


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_s_limit_counts(version: int, tmp_path: Path) -> None:
    write(tmp_path / "proc/meminfo", MEMINFO)
    assert available_bytes(tmp_path) == 5_000_000 * 1024
    base = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "")
    names, unlimited = room.CGROUP_FILES[2 - version], 2**63 - 4096 if version == 1 else "max"
    write(tmp_path / "proc/self/cgroup", {1: "9:cpu:/a\n8:memory:/a/b", 2: "0::/a/b"}[version])
    group(base / "a/b", names, unlimited, 800, 0)
    assert available_bytes(tmp_path) == 5_000_000 * 1024
    group(base / "a", names, 2_000_000, 900_000, 50_000)  # one further up
    assert available_bytes(tmp_path) == 2_000_000 - 900_000 + 2 * 50_000
    group(base / "a/b", names, 1_000_000, 800_000, 0)
    assert available_bytes(tmp_path) == 200_000


def test_a_container_that_does_not_see_its_group_s_path_has_the_limit_at_the_root(
    tmp_path: Path,
) -> None:
    write(tmp_path / "proc/meminfo", MEMINFO)
    write(tmp_path / "proc/self/cgroup", "0::/docker/0123")
    group(tmp_path / "sys/fs/cgroup", room.CGROUP_FILES[0], 1_000_000, 900_000, 0)
    assert available_bytes(tmp_path) == 100_000


def test_a_system_without_meminfo_has_all_its_memory(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) == room.memory_bytes(tmp_path)
