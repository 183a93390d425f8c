"""The lines that start a recipe on several machines: by hand in each terminal, or as a Slurm job.

How it works: every machine runs the recipe's own command (`TrainingRecipe.command`), and torchrun's
agents find each other at the first machine's address. By hand, that machine is told to be the host
of the meeting and each its own address: torchrun would guess both from the machine's name, which
on many machines stands for 127.0.1.1. Slurm's names resolve, so its job needs neither. A job is
submitted from the course's folder, where Python finds `utils`.

Left out: schedulers other than Slurm; containers; the shared folder that all machines write to.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from utils.recipe import TrainingRecipe

PORT = 29500  # as in TrainingRecipe.command
SLURM = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={num_nodes}
#SBATCH --ntasks-per-node=1
{resources}
#SBATCH --time={hours}:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.txt

set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=1
srun --kill-on-bad-exit=1 {command}
"""


def machine_commands(
    recipe: TrainingRecipe, addresses: Sequence[str], *options: str
) -> tuple[str, ...]:
    """One line for each machine, to be started within a minute or so; the first is the head.

    `addresses` are the machines' own, as the others reach them. Raises ValueError for fewer than
    two, for equal ones, or ranks that do not spread evenly.
    """
    if len(addresses) < 2 or len(set(addresses)) < len(addresses):
        raise ValueError(
            f"{len(addresses)} addresses ({', '.join(addresses)}): give each of at least two "
            "machines its own; one machine needs recipe.command() only."
        )
    line = _command(recipe, len(addresses), options)
    first = line.replace("$HEAD", addresses[0])
    parts = [
        f"torchrun --rdzv-conf is_host={int(place == 0)} --local-addr {address}"
        for place, address in enumerate(addresses)
    ]
    return tuple(first.replace("torchrun", part, 1) for part in parts)


def slurm_script(
    recipe: TrainingRecipe, num_nodes: int, *options: str, hours: int = 24, on_gpus: bool = True,
    name: str = "course-gpt",
) -> str:  # fmt: skip
    """A job script for `sbatch`; with `--resume` among the options, a requeued job goes on.

    Raises ValueError for ranks that do not spread evenly over the nodes, or no time.
    """
    if hours < 1:
        raise ValueError(f"hours is {hours}; a job needs at least 1.")
    command = _command(recipe, num_nodes, options)
    per_node = recipe.num_ranks // num_nodes
    resources = f"#SBATCH --gpus-per-node={per_node}\n" * on_gpus
    resources += f"#SBATCH --cpus-per-task={per_node * (4 if on_gpus else 1)}"
    return SLURM.format(
        name=name, num_nodes=num_nodes, resources=resources, hours=hours, command=command
    )


def _command(recipe: TrainingRecipe, num_nodes: int, options: Sequence[str]) -> str:
    if num_nodes > 1 and recipe.method == "single":
        raise ValueError("The method single is one process: take ddp, fsdp or another method.")
    return recipe.command(*map(shlex.quote, options), num_nodes=num_nodes)
