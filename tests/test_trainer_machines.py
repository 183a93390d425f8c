"""Several machines: the lines by hand, the Slurm job, and a run over two networks of this one."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.odd_places import run
from tests.trainer_runs import log_of, words_of
from utils.recipe import TrainingRecipe
from utils.trainer.arguments import parse
from utils.trainer.commands import machine_commands, slurm_script
from utils.trainer.log import read_log
from utils.trainer.process import ROOT

ON_TWO = TrainingRecipe(method="fsdp", num_ranks=2, batch_size=4)
ON_SIXTEEN = TrainingRecipe("bf16", checkpointing="blocks", method="fsdp", num_ranks=16)
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PLACE": str(ROOT)
}  # fmt: skip
LIMIT_S = 300  # a busy machine needs 90 for what takes 10 on an idle one


def settings_in(line: str) -> object:
    """What the trainer makes of the words that follow its name, on sixteen ranks."""
    words = shlex.split(line)
    return parse(words[words.index("utils.train") + 1 :], world_size=16)


def test_each_machine_has_its_own_address_and_the_first_is_the_host() -> None:
    lines = machine_commands(ON_SIXTEEN, ("10.0.0.1", "10.0.0.2"), "--folder", "my run")
    for place, line in enumerate(lines):
        words = shlex.split(line)
        assert words[0] == "torchrun"
        assert words[words.index("--rdzv-conf") + 1] == f"is_host={1 - place}"
        assert words[words.index("--local-addr") + 1] == f"10.0.0.{place + 1}"
        assert words[words.index("--rdzv-endpoint") + 1] == "10.0.0.1:29500"
        assert words[words.index("--nnodes") + 1] == "2"
        assert words[words.index("--nproc-per-node") + 1] == "8"
        settings = settings_in(line)
        assert settings.recipe == ON_SIXTEEN and settings.folder == Path("my run")


@pytest.mark.parametrize("addresses", [(), ("a",), ("a", "a"), ("a", "b", "c")])
def test_machines_that_cannot_be_are_refused(addresses: tuple) -> None:
    with pytest.raises(ValueError, match=r"addresses \(|cannot spread evenly over 3 nodes"):
        machine_commands(ON_SIXTEEN, addresses)


@pytest.mark.parametrize("num_nodes", [1, 2, 16])
def test_the_slurm_job_is_a_script_that_runs_the_recipe(num_nodes: int, tmp_path: Path) -> None:
    script = slurm_script(ON_SIXTEEN, num_nodes, "--folder", "it's here", "--resume", hours=3)
    path = tmp_path / "job.sh"
    path.write_text(script)
    subprocess.run(["bash", "-n", path], check=True)
    assert f"#SBATCH --nodes={num_nodes}\n#SBATCH --ntasks-per-node=1\n" in script
    assert f"#SBATCH --gpus-per-node={16 // num_nodes}\n" in script
    assert "#SBATCH --time=3:00:00\n" in script
    (line,) = [line for line in script.splitlines() if line.startswith("srun ")]
    assert ("$HEAD:29500" in line) == (num_nodes > 1)
    settings = settings_in(line)
    assert settings.recipe == ON_SIXTEEN and settings.resume
    assert settings.folder == Path("it's here")


def test_the_slurm_job_starts_torchrun_on_every_node_with_the_head_s_name(tmp_path: Path) -> None:
    """The script itself runs, with stand-ins for what only a cluster has."""
    script = tmp_path / "job.sh"
    script.write_text(slurm_script(ON_TWO, 2, "--folder", "run", on_gpus=False))
    stand_ins = {
        "scontrol": 'test "$1 $2 $3" = "show hostnames node-[7-8]" && printf "node-7\\nnode-8\\n"',
        "srun": 'shift; echo "$OMP_NUM_THREADS" "$@"',
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node-[7-8]", "SLURM_SUBMIT_DIR": str(tmp_path)}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", script], env=os.environ | slurm | {"PATH": path}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert ran.stdout == (
        "1 torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint node-7:29500 --nproc-per-node 1 "
        "-m utils.train --method fsdp --batch-size 4 --folder run\n"
    )
    assert "gpus" not in script.read_text()


def test_a_slurm_job_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="16 ranks cannot spread evenly over 3 nodes"):
        slurm_script(ON_SIXTEEN, 3)
    with pytest.raises(ValueError, match="hours is 0; a job needs at least 1"):
        slurm_script(ON_SIXTEEN, 2, hours=0)
    with pytest.raises(ValueError, match="The method single is one process"):
        slurm_script(TrainingRecipe(), 2)


TWO_MACHINES = """
set -e
ip link set lo up
unshare --net sleep 300 & other=$!
trap 'code=$?; trap "" TERM; kill 0; exit $code' EXIT  # all of `run`'s session, also on failure
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add near type veth peer name far netns $other
ip addr add 10.7.0.1/24 dev near
ip link set near up
nsenter --net=/proc/$other/ns/net ip link set lo up
nsenter --net=/proc/$other/ns/net ip addr add 10.7.0.2/24 dev far
nsenter --net=/proc/$other/ns/net ip link set far up
[ -n "$1" ] || exit 0
GLOO_SOCKET_IFNAME=near sh -c "$1" & first=$!
GLOO_SOCKET_IFNAME=far nsenter --net=/proc/$other/ns/net sh -c "$2" & second=$!
wait $first; wait $second
echo sent $(cat /sys/class/net/near/statistics/tx_bytes 2>/dev/null || \
  awk '/near:/ {print $10}' /proc/net/dev)
"""


def in_two_networks(*commands: str) -> subprocess.CompletedProcess:
    """Run a command in each of two network namespaces with one cable between them."""
    tool = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", TWO_MACHINES, "sh"]
    return run([*tool, *(commands or [""])], ENVIRONMENT, LIMIT_S)


def two_networks_problem() -> str:
    """Why this machine cannot have two networks; nothing when it can."""
    if any(shutil.which(tool) is None for tool in ("unshare", "nsenter", "ip")):
        return "unshare, nsenter or ip is missing"
    made = in_two_networks()
    return "" if made.returncode == 0 else made.stderr.strip().splitlines()[-1]


def test_two_machines_train_as_one_process(tmp_path: Path) -> None:
    """Two network stacks, each with one address, joined by a virtual cable and nothing else.

    It proves that ranks meet through torchrun's rendezvous at the first machine's address, that
    messages take the cable, and that the losses are those of one process. It proves nothing about
    GPUs, NCCL, or a file system that two machines share.
    """
    addresses, is_cabled = ("10.7.0.1", "10.7.0.2"), not two_networks_problem()
    if not is_cabled:  # without user namespaces: two addresses of the loopback device
        addresses = ("127.0.0.1", "127.0.0.2")
    folder = tmp_path / "run"
    words = words_of(ON_TWO, folder, "--no-memory")
    lines = machine_commands(ON_TWO, addresses, *words[len(ON_TWO.flags()) :])
    torchrun = f"{shlex.quote(sys.executable)} -m torch.distributed.run"  # its path may have spaces
    lines = [line.replace("torchrun", torchrun, 1) for line in lines]
    if is_cabled:
        ended = in_two_networks(*lines)
        assert ended.returncode == 0, ended.stderr
        num_bytes = int(ended.stdout.split("sent ")[1])
        assert num_bytes > 6 * 3 * 0.5 * 4 * 42_880  # 3 times half of the weights in each step
    else:
        started = [subprocess.Popen(line, shell=True, env=ENVIRONMENT) for line in lines]
        assert [each.wait(timeout=LIMIT_S) for each in started] == [0, 0]
    log, alone = read_log(folder), log_of(TrainingRecipe(), tmp_path / "alone", "--no-memory")
    assert log.losses == pytest.approx(alone.losses, abs=2e-6)
    assert log.end["validation_loss"] == pytest.approx(alone.end["validation_loss"], abs=2e-6)


@pytest.mark.skipif(two_networks_problem() != "", reason="this machine cannot have two networks")
def test_a_machine_that_fails_leaves_none_waiting() -> None:
    """The networks of the test above end with it; they once held the tests until their limit."""
    ended = in_two_networks("sleep 1; exit 3", "sleep 900; true")
    assert ended.returncode == 3 and ended.stdout == ""
