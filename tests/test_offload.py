"""Offloading: the same gradients, fewer bytes in memory, every file accounted for and removed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.checkpoint_cases import CONFIG, EACH_BLOCK, OURS, assert_same, in_plan
from tests.helpers import batch_for
from utils.memory import MemoryMeter
from utils.model import build_gpt, next_token_loss
from utils.saved import saved_for_backward
from utils.techniques.offload import SMALL_BYTES, DiskStore, HostStore, offloading

STORES = {"disk": DiskStore, "host": lambda folder: HostStore()}
ROOT = Path(__file__).resolve().parents[1]
BIG = 5000  # values: more bytes than stay behind


@pytest.fixture
def store(tmp_path):
    store = DiskStore(tmp_path)
    yield store
    store.close()


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def offloaded_step(config, store, plan=None, checkpoint=None, inside=False):
    model, batch = build_gpt(config), batch_for(config, 4)
    torch.manual_seed(7)
    with in_plan(model, plan, checkpoint):
        with offloading(store, model, small_bytes=0):
            loss = next_token_loss(model, *batch)
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


def plain_step(config):
    model, batch = build_gpt(config), batch_for(config, 4)
    torch.manual_seed(7)
    loss = next_token_loss(model, *batch)
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("inside", [False, True], ids=["backward outside", "backward inside"])
@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("name", STORES)
def test_every_gradient_is_bit_equal(name, attention, inside, tmp_path):
    config = replace(CONFIG, attention=attention, tied_embeddings=True, num_kv_heads=1)
    store = STORES[name](tmp_path)
    assert_same(offloaded_step(config, store, inside=inside), plain_step(config))
    assert 100_000 < store.bytes_out <= store.bytes_back < 1.1 * store.bytes_out


@pytest.mark.parametrize("name", OURS)
def test_inputs_of_checkpointed_layers_can_be_offloaded_too(name, store):
    assert_same(offloaded_step(CONFIG, store, EACH_BLOCK, OURS[name]), plain_step(CONFIG))
    assert 0 < store.bytes_out < 0.4 * saved_bytes_that_move(CONFIG)


def saved_bytes_that_move(config, small_bytes=0):
    """Every storage kept for backward, weights and buffers and small ones aside."""
    model, batch = build_gpt(config), batch_for(config, 4)
    saved = saved_for_backward(model, lambda: next_token_loss(model, *batch))
    return sum(one.num_bytes for one in saved if one.num_bytes >= small_bytes)


@pytest.mark.parametrize("small_bytes", [0, SMALL_BYTES, 100_000])
def test_what_moves_is_what_is_saved_but_for_small_blocks_and_weights(store, small_bytes):
    model, batch = build_gpt(CONFIG), batch_for(CONFIG, 4)
    with offloading(store, model, small_bytes):
        loss = next_token_loss(model, *batch)
    expected = saved_bytes_that_move(CONFIG, small_bytes)
    assert store.bytes_out == expected == sum(path.stat().st_size for path in files(store._folder))
    assert store.bytes_back == 0
    loss.backward()
    log_probabilities = 4 * 32 * 64 * 4  # two operations want them, the second after they are gone
    assert store.bytes_back == expected + log_probabilities * (log_probabilities >= small_bytes)


def test_memory_between_forward_and_backward_falls_to_what_stays(store):
    model, batch = build_gpt(CONFIG), batch_for(CONFIG, 4)
    seen = {}
    for way in ("plain", "offloaded"):
        next_token_loss(model, *batch).backward()
        with MemoryMeter(model) as meter:
            if way == "plain":
                loss = next_token_loss(model, *batch)
            else:
                with offloading(store, model, small_bytes=0):
                    loss = next_token_loss(model, *batch)
            meter.mark("between")
            loss.backward()
            del loss
        report = meter.report()
        seen[way] = report.peak_bytes, sum(report.at_mark("between").values())
    batch_bytes = sum(tensor.nbytes for tensor in batch)  # saved, and ours as well
    assert seen["plain"][1] - seen["offloaded"][1] == store.bytes_out - batch_bytes
    assert seen["offloaded"][0] < 0.6 * seen["plain"][0]


def test_views_share_one_block_and_one_copy(store):
    x = torch.randn(100, BIG).requires_grad_()
    with offloading(store, nn.Linear(1, 1)):
        y = x * 2
        z = (y[:50] * y[50:]).sum()
    assert store.bytes_out == x.nbytes
    z.backward(retain_graph=True)
    assert store.bytes_back == x.nbytes
    first, x.grad = x.grad, None
    z.backward()
    assert torch.equal(x.grad, first) and store.bytes_back == 2 * x.nbytes
    assert torch.equal(first, 4 * x.detach().roll(50, 0))


def test_a_block_that_was_changed_in_place_in_between_goes_again(store):
    x = torch.linspace(1, 2, BIG).requires_grad_()
    with offloading(store, nn.Linear(1, 1)):
        buffer = x.detach().clone()
        first = x * buffer
        buffer.mul_(3)
        second = x * buffer
        buffer.zero_()
    (first + second).sum().backward()  # plain autograd would refuse
    assert torch.allclose(x.grad, 4 * x.detach())
    assert store.bytes_out == 2 * buffer.nbytes


def test_a_new_tensor_where_a_freed_one_was_is_not_taken_for_it(store):
    x, total = torch.ones(BIG).requires_grad_(), 0
    with offloading(store, nn.Linear(1, 1)):
        for number in range(8):  # the allocator gives the same addresses again
            total = total + (x * torch.full((BIG,), float(number))).sum()
    total.backward()
    assert x.grad.unique().tolist() == [sum(range(8))]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64, torch.complex64, torch.bool])
def test_every_dtype_comes_back(store, dtype):
    value = torch.arange(BIG * 2).remainder(7).to(dtype)[1::2]
    with offloading(store, nn.Linear(1, 1)):
        saved = Keep.apply(torch.ones(1, requires_grad=True), value)
    (back,) = saved.grad_fn.saved_tensors
    assert torch.equal(back, value) and back.dtype == dtype and back.stride() == value.stride()
    assert store.bytes_back == store.bytes_out == 2 * BIG * value.element_size()


class Keep(torch.autograd.Function):
    """Saves any tensor."""

    @staticmethod
    def forward(ctx, anchor, tensor):
        ctx.save_for_backward(tensor)
        return anchor * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def test_tensors_that_are_more_than_their_bytes_stay(store):
    class Marked(torch.Tensor):
        pass

    z = torch.complex(torch.ones(BIG), torch.arange(BIG).float())
    special = [z.conj(), z.conj().imag, torch.eye(BIG // 10).to_sparse(), z.as_subclass(Marked)]
    for tensor in (*special, torch.ones(BIG, device="meta")):
        with offloading(store, nn.Linear(1, 1)):
            saved = Keep.apply(torch.ones(1, requires_grad=True), tensor)
        (back,) = saved.grad_fn.saved_tensors
        assert type(back) is type(tensor) and back.layout == tensor.layout
        assert back.is_meta or torch.equal(back.to_dense(), tensor.to_dense())
    assert store.bytes_out == 0
