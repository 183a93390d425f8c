"""Data parallelism, torch's and ours, under the interface of utils.peers."""

from dataclasses import replace

import pytest
import torch

from utils.config import GPTConfig
from utils.costs import count_parameters, tensor_sizes
from utils.peers import TrainingJob
from utils.peers.ddp import OurDdpSystem, TorchDdpSystem
from utils.peers.fsdp2_traffic import traffic_in_models
from utils.peers.harness import largest_gap, measure_system, one_process, train_system
from utils.ranks import run_ranks

CONFIG = GPTConfig(3, 2, 32, 16, 64)
JOB = TrainingJob(CONFIG, batch_size=8, num_steps=3)
CLIPPED, LOW = replace(JOB, max_norm=0.1), replace(JOB, low_precision=True)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As a rank has: with more, some sums of the oracle would have another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ddp_results(rank, world_size, make_system):
    """Training in fp32 and in bf16 with everything, and what is held in both."""
    both = replace(LOW, num_micro_batches=2, max_norm=0.1)
    trained = [train_system(rank, world_size, make_system, job) for job in (JOB, both)]
    return trained, [measure_system(rank, world_size, make_system, job) for job in (JOB, LOW)]


@pytest.mark.parametrize("make_system", [TorchDdpSystem, OurDdpSystem])
def test_data_parallelism_beside_it(make_system):
    (run, low), held = run_ranks(ddp_results, 2, make_system, quiet=True)[0]
    assert largest_gap(run, one_process(JOB, 2)) == (0.0, 0.0)
    assert traffic_in_models(CONFIG, run.sent_bytes) == 1.0
    loss_gap, parameter_gap = largest_gap(low, one_process(CLIPPED, 4))
    assert loss_gap < 1e-2 and parameter_gap < 1e-2
    assert traffic_in_models(CONFIG, low.sent_bytes) == 0.5
    num_values, num_tensors = count_parameters(CONFIG).total, len(tensor_sizes(CONFIG))
    for each, (weights, gradients, state) in zip(held, ((4, 4, 8), (2, 2, 12)), strict=True):
        assert each.held == {
            "parameters": weights * num_values,
            "gradients": gradients * num_values,
            "optimizer state": state * num_values + 4 * num_tensors,
        }
