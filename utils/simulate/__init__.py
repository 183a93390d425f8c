"""A simulator of data-parallel training, from the price of a message to dollars per token.

How it works, from the bottom up:

    links              alpha-beta links, published rates, clusters
    traffic            steps and bytes of collectives; `messages` proves them
    collectives        their cost on a cluster, flat or in phases
    timeline           tasks on streams: exact times, exposed communication
    layers, buckets    a GPT as tasks and messages
    data_parallel      builders of steps; `sharded_optimizer` is one with gathers
    calibration        a link from measurements
    scaling            efficiency and dollars by number of GPUs; `batch_size` its limit
    megatron           a published scaling predicted from its first point

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
from utils.simulate.layers import Layer, gpt_layers
from utils.simulate.links import LINKS, Cluster, Link, cluster_of
from utils.simulate.megatron import predict_published
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

__all__ = [
    "COMMUNICATION",
    "COMPUTE",
    "LINKS",
    "Cluster",
    "Layer",
    "Link",
    "ScalingPoint",
    "Setup",
    "Task",
    "Timeline",
    "Traffic",
    "after_backward",
    "assign_buckets",
    "calibrate",
    "cluster_of",
    "collective_cost",
    "collective_seconds",
    "effective_batch",
    "fit_errors",
    "gpt_layers",
    "median_error",
    "overlapped",
    "predict_published",
    "predicted_seconds",
    "scaled_learning_rate",
    "sharded_optimizer",
    "simulate",
    "simulate_step",
    "steps_factor",
    "strong_scaling",
    "tokens_factor",
    "traffic",
    "weak_scaling",
]
