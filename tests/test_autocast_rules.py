"""CUDA's rules against torch's own header, against a table, and against a GPU if there is one."""

import re
from pathlib import Path

import pytest
import torch

from tests.autocast_operations import BF16, DTYPE_PAIRS, FP32, OPERATIONS, inputs, outcome
from utils.techniques.autocast import ManualAutocast
from utils.techniques.autocast_rules import CUDA_RULES


def torch_cuda_lists() -> dict[str, set[str]]:
    """CUDA's lists as torch's own header states them: a table that we did not write."""
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    text = header.read_text()
    parts = re.findall(r"#define AT_FORALL_(\w+)\(_\)((?:[^\n]*\\\n)*[^\n]*\n)", text)
    return {name: set(re.findall(r"_\((\w+)", body)) for name, body in parts}


def test_cuda_rules_agree_with_torchs_header():
    lists = torch_cuda_lists()
    header_names = {"cross_entropy": "nll_loss", "norm": "frobenius_norm"}
    header_names |= {"grid_sample": "grid_sampler"}
    for ours, theirs in (
        (CUDA_RULES.low, lists["LOWER_PRECISION_FP"]),
        (CUDA_RULES.fp32, lists["FP32"]),
        (CUDA_RULES.fp32_sums, lists["FP32_SET_OPT_DTYPE"]),
        (CUDA_RULES.widest, lists["PROMOTE"]),
    ):
        unknown = {name for name in ours if header_names.get(name, name) not in theirs}
        assert not unknown
    missing = lists["FP32"] - CUDA_RULES.fp32
    assert all(name.startswith(("upsample_", "_upsample_", "n", "f")) for name in missing), missing


FP32_UNDER_CUDA = """exp expm1 log log1p pow pow_method reciprocal rsqrt sinh cosh tan softplus sum
    sum_over_a_dimension prod cumsum cumprod softmax softmax_method log_softmax logsumexp norm
    vector_norm layer_norm rms_norm group_norm cosine_similarity cdist cross_entropy nll_loss
    mse_loss l1_loss huber_loss kl_div bce_with_logits quantile""".split()
LOW_UNDER_CUDA = """mm matmul matmul_method bmm addmm baddbmm addbmm mv addmv addr linear einsum
    multi_dot vecdot conv1d conv2d conv3d conv_transpose2d prelu attention""".split()


@pytest.mark.parametrize("name", OPERATIONS)
def test_cuda_rules_on_cpu_tensors_follow_the_table(name):
    """bf16 inputs leave an fp32 operation as fp32; fp32 inputs leave a product as bf16."""
    key = name.replace(" ", "_")
    with ManualAutocast(CUDA_RULES, BF16):
        from_bf16 = outcome(OPERATIONS[name], inputs(BF16, BF16))
        from_fp32 = outcome(OPERATIONS[name], inputs(FP32, FP32))
    low, high = key in LOW_UNDER_CUDA, key in FP32_UNDER_CUDA
    assert from_bf16.dtype == (FP32 if high else BF16)
    assert from_fp32.dtype == (BF16 if low else FP32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("pair", DTYPE_PAIRS)
def test_cuda_rules_give_torchs_dtypes_on_a_gpu(pair):
    on_the_cpu = ("cross_entropy", "nll_loss", "embedding")  # where their labels live
    for name, operation in OPERATIONS.items():
        if name in on_the_cpu:
            continue
        tensors = inputs(*DTYPE_PAIRS[pair], device="cuda")
        with torch.autocast("cuda", BF16):
            theirs = outcome(operation, tensors)
        with ManualAutocast(CUDA_RULES, BF16):
            ours = outcome(operation, tensors)
        assert getattr(ours, "dtype", ours) == getattr(theirs, "dtype", theirs), name
