"""One table row per system and setting, measured here or read from a run that was recorded.

How it works: `peer_row` trains under a system and puts the run, its bytes and its traffic into a
`PeerRow`; a lesson shows such rows. Where a library cannot run, the lesson shows the rows of
`read_peer(...)` in the same table, with the recording's date and versions. To record again:

    python -m utils.peers.recorded_runs deepspeed yafsdp

writes utils/data/peers/deepspeed.json and yafsdp.json (beside utils/data/recorded/, whose files
`utils.recorded` reads as benchmarks of a device). Left out: weights; what a lesson could compute.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from statistics import fmean

import torch

from utils.config import GPTConfig
from utils.measured import processor_name
from utils.model import build_gpt
from utils.peers import MakeSystem, TrainingJob
from utils.peers.deepspeed_zero import STAGES, deepspeed_stage
from utils.peers.harness import largest_gap, measure_system, one_process, train_system
from utils.peers.real_yafsdp import TRIED_COMMIT, real_yafsdp_system, yafsdp_problem
from utils.ranks import run_ranks

FOLDER = Path(__file__).resolve().parents[1] / "data" / "peers"
SCHEMA = 1


@dataclass(frozen=True)
class PeerRow:
    """What one setting did on so many ranks; `held` and `peak_bytes` of the rank with the most.

    `sent_bytes` (written by gloo) and `textbook_bytes` (enough for the same collectives) are means
    over the ranks, in one step. `loss_gap` is the largest difference from one process in fp32.
    """

    setting: str
    world_size: int
    low_precision: bool
    num_parameters: int
    losses: tuple[float, ...]
    loss_gap: float
    held: dict[str, int]
    peak_bytes: int
    sent_bytes: float
    textbook_bytes: float
    calls: dict[str, int]
    step_s: float

    @property
    def held_per_parameter(self) -> float:
        """Bytes of weights, gradients and optimizer state, for each parameter of the model."""
        return sum(self.held.values()) / self.num_parameters

    @property
    def traffic(self) -> float:
        """What a rank writes in a step, in units of the model in fp32."""
        return self.sent_bytes / (4 * self.num_parameters)

    @property
    def textbook_traffic(self) -> float:
        """What would have been enough, in units of the model in fp32."""
        return self.textbook_bytes / (4 * self.num_parameters)


@dataclass(frozen=True)
class RecordedPeer:
    """The rows of a library on one machine, and what they were made with."""

    library: str
    version: str
    torch: str
    device: str
    date: str
    job: TrainingJob
    rows: tuple[PeerRow, ...]

    @property
    def label(self) -> str:
        """What every quoted figure needs beside it."""
        return f"{self.library} {self.version}, torch {self.torch}, {self.device}, {self.date}"


def peer_row(setting: str, make_system: MakeSystem, world_size: int, job: TrainingJob) -> PeerRow:
    """Train under the system twice, once for its run and once for its bytes."""
    runs = run_ranks(train_system, world_size, make_system, job)
    sizes = run_ranks(measure_system, world_size, make_system, job)
    oracle = one_process(dataclasses.replace(job, low_precision=False))
    largest = max(sizes, key=lambda each: each.held_bytes)
    return PeerRow(
        setting,
        world_size,
        job.low_precision,
        sum(each.numel() for each in build_gpt(job.config, device="meta").parameters()),
        runs[0].losses,
        largest_gap(runs[0], oracle)[0],
        largest.held,
        max(each.peak_bytes for each in sizes),
        fmean(run.sent_bytes for run in runs),
        fmean(run.textbook_bytes for run in runs),
        runs[0].calls,
        runs[0].median_step_s,
    )


def recorded_deepspeed(folder: Path = FOLDER) -> RecordedPeer:
    """DeepSpeed's stages 0 to 3 on 2 and 4 ranks, in fp32 and in bf16, as they were recorded."""
    return read_peer("deepspeed", folder)


def read_peer(name: str, folder: Path = FOLDER) -> RecordedPeer:
    """One recorded library. Raises ValueError with one sentence when the file is not whole."""
    path = folder / f"{name}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        job, rows = data.pop("job"), data.pop("rows")
        job = TrainingJob(**{**job, "config": GPTConfig(**job["config"])})
        rows = tuple(PeerRow(**{**row, "losses": tuple(row["losses"])}) for row in rows)
        return RecordedPeer(job=job, rows=rows, **data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path.name} is not a recorded run ({type(error).__name__}): restore the file, or "
            f"record again with `python -m utils.peers.recorded_runs {name}`."
        ) from error


def write_peer(name: str, recorded: RecordedPeer, folder: Path = FOLDER) -> Path:
    """Write one library's file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    temporary = path.with_suffix(".tmp")
    data = {"schema": SCHEMA, **dataclasses.asdict(recorded)}
    temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def record_deepspeed(job: TrainingJob, world_sizes: tuple[int, ...] = (2, 4)) -> RecordedPeer:
    """Every stage, and stage 2 as the paper sends, on all numbers of ranks, in both precisions."""
    settings = {f"stage {stage}": deepspeed_stage(stage) for stage in STAGES}
    to_owner = deepspeed_stage(2, use_multi_rank_bucket_allreduce=False)
    rows = [
        peer_row(name, make_system, world_size, each)
        for each in (job, dataclasses.replace(job, low_precision=True))
        for world_size in world_sizes
        for name, make_system in (settings | {"stage 2, to the owner": to_owner}).items()
    ]
    return recorded_now("DeepSpeed", metadata.version("deepspeed"), job, rows)


def record_yafsdp(job: TrainingJob, world_sizes: tuple[int, ...] = (2, 4)) -> RecordedPeer:
    """The real YaFSDP in both modes. Raises RuntimeError where it cannot be imported."""
    if yafsdp_problem() is not None:
        raise RuntimeError("YaFSDP is not installed here: the README says how; then record again.")
    rows = [
        peer_row(name, real_yafsdp_system(reshard_after_forward=name == "ZeRO-3"), num_ranks, each)
        for each in (job, dataclasses.replace(job, low_precision=True))
        for num_ranks in world_sizes
        for name in ("ZeRO-3", "ZeRO-2")
    ]
    return recorded_now("YaFSDP", f"commit {TRIED_COMMIT} of 2026-08-12", job, rows)


def recorded_now(library: str, version: str, job: TrainingJob, rows: list[PeerRow]) -> RecordedPeer:
    """Rows that have just been measured here."""
    torch_version = torch.__version__.partition("+")[0]
    today = date.today().isoformat()
    return RecordedPeer(library, version, torch_version, processor_name(), today, job, tuple(rows))


RECORDERS = {"deepspeed": record_deepspeed, "yafsdp": record_yafsdp}


def main(arguments: list[str]) -> int:
    """Record the libraries that are named; 2 when there is none of that name."""
    unknown = [name for name in arguments if name not in RECORDERS]
    if unknown or not arguments:
        print(f"Name what to record: {', '.join(RECORDERS)}.", file=sys.stderr)
        return 2
    for name in arguments:
        print("wrote", write_peer(name, RECORDERS[name](TrainingJob())).name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
