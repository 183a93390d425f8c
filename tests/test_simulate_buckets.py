"""Buckets on sizes alone, against our technique, torch's function and a running torch DDP."""

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from utils.config import PRESETS
from utils.model import build_gpt, next_token_loss
from utils.simulate.buckets import BUCKET_BYTES, FIRST_BUCKET_BYTES, MIB, assign_buckets
from utils.techniques.buckets import make_buckets

CAPS = [(FIRST_BUCKET_BYTES, BUCKET_BYTES), (MIB, MIB), (MIB // 4, MIB // 4), (1, 2 * MIB), (1, 1)]


@pytest.fixture
def one_rank(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sizes_of(model):
    return [parameter.nbytes for parameter in model.parameters()]


@pytest.mark.parametrize("preset", ["laptop", "laptop-wide"])
@pytest.mark.parametrize(("first", "cap"), CAPS)
def test_buckets_are_torchs_and_our_techniques(preset, first, cap):
    model = build_gpt(PRESETS[preset])
    ours = assign_buckets(sizes_of(model), first, cap)
    backwards = list(model.parameters())[::-1]
    torchs, _ = dist._compute_bucket_assignment_by_size(backwards, [first, cap])
    assert ours == [[len(backwards) - 1 - place for place in bucket] for bucket in torchs]
    places = {parameter: place for place, parameter in enumerate(model.parameters())}
    technique = make_buckets(list(model.parameters()), first, cap)
    assert ours == [[places[p] for p in bucket.parameters] for bucket in technique]


@pytest.mark.parametrize("cap_mib", [None, 0.25, 1, 2])
def test_a_running_ddp_settles_on_the_same_buckets(cap_mib, one_rank):
    """After its first step DDP orders its buckets by the arrival of gradients."""
    model = build_gpt(PRESETS["laptop"])
    caps = {} if cap_mib is None else {"bucket_cap_mb": cap_mib}
    ddp = DistributedDataParallel(model, **caps)
    tokens_BT = torch.zeros(1, 8, dtype=torch.long)
    for _ in range(3):
        next_token_loss(ddp, tokens_BT, tokens_BT).backward()
    told = ddp._get_ddp_logging_data()["rebuilt_bucket_sizes"]
    first, cap = CAPS[0] if cap_mib is None else (int(cap_mib * MIB), int(cap_mib * MIB))
    sizes = sizes_of(model)
    ours = [sum(sizes[place] for place in b) for b in assign_buckets(sizes, first, cap)]
    assert [int(size) for size in told.split(",")] == ours


def test_by_hand():
    assert assign_buckets([30, 10, 10, 5], 5, 20) == [[3], [2, 1], [0]]
    assert assign_buckets([30, 10, 10, 5], 100, 100) == [[3, 2, 1, 0]]
    assert assign_buckets([]) == []


@pytest.mark.parametrize("caps", [(0, 1), (1, 0)])
def test_a_cap_below_one_byte_is_refused(caps):
    with pytest.raises(ValueError, match="at least one byte"):
        assign_buckets([1], *caps)
