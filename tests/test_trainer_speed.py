"""Peak, FLOPs, and what is printed of them."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from utils.config import GPTConfig
from utils.hardware import load_chips
from utils.model import build_gpt, next_token_loss
from utils.peers.fsdp2 import group_device
from utils.recipe import TrainingRecipe
from utils.trainer.group import together, uses_gpus
from utils.trainer.log import Event
from utils.trainer.progress import Progress, dollars
from utils.trainer.settings import TrainerError
from utils.trainer.speed import GPU_NAMES, chip_of, find_peak, flops_per_step
from utils.trainer.systems import checkpoint_blocks

CONFIG = GPTConfig(num_layers=3, num_heads=2, model_dim=32, context_length=16,
                   attention="explicit")  # fmt: skip
CPU = torch.device("cpu")


@pytest.mark.parametrize("library", ["torch", "ours"])
def test_flops_are_those_of_torch_s_counter(library: str) -> None:
    """Micro-batches and ranks only spread the same sequences."""
    recipe = TrainingRecipe(
        checkpointing="blocks", library=library, method="ddp", batch_size=2, micro_batches=3,
        num_ranks=2,
    )  # fmt: skip
    model = build_gpt(CONFIG)
    checkpoint_blocks(model, library)
    tokens_BT = torch.zeros(recipe.sequences_per_step, 16, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        next_token_loss(model, tokens_BT, tokens_BT).backward()
    useful, again = flops_per_step(recipe, CONFIG)
    assert useful + again == counter.get_total_flops() and again > 0
    assert flops_per_step(replace(recipe, checkpointing="none"), CONFIG) == (useful, 0)


def test_a_chip_s_peak_is_the_table_s() -> None:
    peak = find_peak("bf16", CPU, "H100 SXM")
    assert (peak.flops_per_s, peak.source, peak.chip) == (989e12, "chips.csv", "H100 SXM")
    assert find_peak("fp32", CPU, "H100 SXM").flops_per_s == 67e12
    for chip in ("H1000", "MTIA v1"):
        with pytest.raises(TrainerError, match=chip):
            find_peak("bf16", CPU, chip)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_a_chip_a_product_is_measured(precision: str) -> None:
    peak = find_peak(precision, CPU)
    assert (peak.source, peak.dtype, peak.chip) == ("measured product", precision, None)
    assert 1e8 < peak.flops_per_s < 1e14  # a CPU's core, whichever


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("Tesla V100-SXM2-16GB", None),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", None),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("AMD Instinct MI300X", "MI300X"),
    ],
)
def test_a_gpu_is_known_by_its_driver_s_name(name: str, chip: str | None) -> None:
    assert chip_of(name) == chip


def test_every_known_gpu_has_its_row() -> None:
    assert set(GPU_NAMES.values()) <= {chip.name for chip in load_chips()}


@pytest.mark.parametrize(("rank", "local", "number"), [(9, "1", 1), (1, "1", 1), (3, None, 3)])
def test_the_local_rank_chooses_the_gpu(
    rank: int, local: str | None, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_backend_config", lambda group: "cpu:gloo,cuda:nccl")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    assert group_device(rank) == torch.device("cuda", number)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert uses_gpus("torch") and uses_gpus("ours") and not uses_gpus("deepspeed")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "9")  # not a GPU for each: gloo on processors
    assert not uses_gpus("torch")


def test_together_says_what_went_wrong() -> None:
    assert together(lambda: 7) == 7
    for error in (OSError(28, "No space left on device"), ValueError("no"), RuntimeError("no")):
        with pytest.raises(TrainerError, match=r"No space left|no"):
            together(lambda error=error: _raise(error))
    with pytest.raises(KeyError):  # an error of the program keeps its traceback
        together(lambda: {}["x"])


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("usd", "text"),
    [(0, "$0.00"), (0.000891, "$0.00089"), (0.0123, "$0.012"), (0.5, "$0.50"), (12.5, "$12.50"),
     (12345.678, "$12,345.68")],
)  # fmt: skip
def test_dollars_show_what_counts(usd: float, text: str) -> None:
    assert dollars(usd) == text


def test_progress_prints_a_line_now_and_then() -> None:
    stream = io.StringIO()
    progress = Progress(every_s=3600, stream=stream)
    start = {"name": "fp32, one process", "num_parameters": 1000, "tokens_per_step": 256,
             "device": "a CPU", "peak_flops_per_s": 2e11, "peak_source": "measured product",
             "settings": {"steps": 5}}  # fmt: skip
    progress({"event": "start", **start})
    for step in range(1, 6):
        progress(_step(step))
    progress({"event": "saved", "step": 5, "folder": "step-000005"})
    progress({"event": "validation", "step": 5, "loss": 1.5})
    progress({"event": "end", "seconds": 2.0, "usd": 0.5, "ranks": [{"peak_bytes": 1234}]})
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("fp32, one process: 1,000 parameters, 256 tokens a step")
    assert [" ".join(line.split()[:3]) for line in lines[1:-1]] == [
        "step 1/5 loss", "step 5/5 loss", "step 5 saved", "step 5 validation"
    ]  # fmt: skip
    assert lines[-1] == "finished after 2.0 s of training, $0.50, at most 1,234 bytes on a rank"
    assert "loss 2.0000  1,280 tokens/s  MFU 12.5%  $0.0010" in lines[1]


def test_a_terminal_that_is_gone_does_not_end_a_run() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Progress(stream=Gone())(_step(1))


def _step(step: int) -> Event:
    return {"event": "step", "step": step, "loss": 2.0, "tokens_per_s": 1280.4, "mfu": 0.125,
            "usd": 0.001}  # fmt: skip
