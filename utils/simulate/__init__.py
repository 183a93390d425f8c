"""A simulator of data-parallel training, from the price of a message to dollars per token.

How it works, from the bottom up:

    links              alpha-beta links, published rates, clusters
    traffic            steps and bytes of collectives; `messages` proves them
    collectives        their cost on a cluster, flat or in phases
    timeline           tasks on streams: exact times, exposed communication
    layers, buckets    a GPT as tasks and messages
    llama              published models as such tasks
    data_parallel      builders of steps; `sharded_optimizer` is one with gathers
    fully_sharded      FSDP's step, `two_buffers` YaFSDP's, `hazards` of buffers
    calibration        a link from measurements
    scaling            efficiency and dollars by number of GPUs; `batch_size` its limit
    megatron           a published scaling predicted from its first point
    yafsdp_published   sixteen published runs predicted from four of them

A further training method is one more builder that returns tasks. No torch is needed here.
Left out: what each module names; above all stragglers, contention and element-wise work.
"""

from utils.simulate.batch_size import (
    effective_batch,
    scaled_learning_rate,
    steps_factor,
    tokens_factor,
)
from utils.simulate.buckets import assign_buckets
from utils.simulate.calibration import calibrate, fit_errors, median_error, predicted_seconds
from utils.simulate.collectives import collective_cost, collective_seconds
from utils.simulate.data_parallel import after_backward, overlapped
from utils.simulate.fully_sharded import FullySharded, fully_sharded
from utils.simulate.hazards import Access, most_gathered, overwrites
from utils.simulate.layers import Layer, gpt_layers
from utils.simulate.links import LINKS, Cluster, Link, cluster_of
from utils.simulate.llama import checkpointed, find_llama, llama_layers, load_llama_shapes
from utils.simulate.megatron import predict_published
from utils.simulate.rank_correlation import rank_correlation
from utils.simulate.scaling import (
    ScalingPoint,
    Setup,
    simulate_step,
    strong_scaling,
    weak_scaling,
)
from utils.simulate.sharded_optimizer import sharded_optimizer
from utils.simulate.timeline import COMMUNICATION, COMPUTE, Task, Timeline, simulate
from utils.simulate.traffic import Traffic, traffic
from utils.simulate.two_buffers import buffer_accesses, two_buffers
from utils.simulate.yafsdp_published import (
    calibrate_published,
    held_out,
    median_time_error,
    predict_yafsdp,
    speedup_rank_correlation,
    without_fsdp_losses,
)

__all__ = [
    "COMMUNICATION",
    "COMPUTE",
    "LINKS",
    "Access",
    "Cluster",
    "FullySharded",
    "Layer",
    "Link",
    "ScalingPoint",
    "Setup",
    "Task",
    "Timeline",
    "Traffic",
    "after_backward",
    "assign_buckets",
    "buffer_accesses",
    "calibrate",
    "calibrate_published",
    "checkpointed",
    "cluster_of",
    "collective_cost",
    "collective_seconds",
    "effective_batch",
    "find_llama",
    "fit_errors",
    "fully_sharded",
    "gpt_layers",
    "held_out",
    "llama_layers",
    "load_llama_shapes",
    "median_error",
    "median_time_error",
    "most_gathered",
    "overlapped",
    "overwrites",
    "predict_published",
    "predict_yafsdp",
    "predicted_seconds",
    "rank_correlation",
    "scaled_learning_rate",
    "sharded_optimizer",
    "simulate",
    "simulate_step",
    "speedup_rank_correlation",
    "steps_factor",
    "strong_scaling",
    "tokens_factor",
    "traffic",
    "two_buffers",
    "weak_scaling",
    "without_fsdp_losses",
]
