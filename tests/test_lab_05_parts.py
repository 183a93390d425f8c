"""What lab 05's judges of offloading and money compare with: blocks, stores, prices."""

from dataclasses import replace

import torch

from utils.checks.truth_05_blocks import Block, SavedStorage, Vault, moved_by_age, saved_storages
from utils.checks.truth_05_money import Machine, Technique, cheapest, random_tables, step_usd
from utils.checks.truth_05_offload import small_model
from utils.checks.truth_05_rent import aws_machines, gpt2_techniques


def test_a_block_moves_once_and_comes_back_once_for_all_views():
    x, vault = torch.arange(12.0).reshape(3, 4), Vault()
    block = Block(x.untyped_storage())
    assert block.is_of(x.t().untyped_storage()) and block.storage() is x.untyped_storage()
    block.move(vault)
    del x
    first, second = block.storage(), block.storage()
    assert first is second and vault.bytes_out == vault.bytes_back == 48
    assert torch.empty(0).set_(first, 1, (3,), (4,)).tolist() == [1, 5, 9]
    assert not block.is_of(first) and vault.num_tickets() == 1
    del block
    assert vault.num_tickets() == 0


def test_the_oldest_blocks_move_and_no_more_than_must():
    sizes = [4, 3, 2, 5, 1]
    saved = [SavedStorage(size, str(k), is_weight=False) for k, size in enumerate(sizes)]
    saved.insert(1, SavedStorage(100, "weight", is_weight=True))
    moved = [[each.digest for each in moved_by_age(saved, limit)] for limit in (15, 14, 9, 6, 0)]
    assert moved == [[], ["0"], ["0", "1"], ["0", "1", "2"], ["0", "1", "2", "3", "4"]]


def test_saved_storages_are_counted_once_and_weights_are_marked():
    model, forward = small_model(torch.float32)
    saved = saved_storages(model, forward)
    weights = [each for each in saved if each.is_weight]
    assert weights and len(weights) < len(saved)
    qkv_bytes = 4 * 2 * 32 * 3 * 32  # fused attention saves three views into one storage
    assert [each.num_bytes for each in saved].count(qkv_bytes) == 2


def test_prices_of_a_small_table_by_hand():
    machine = Machine("m", 10, 3600.0, 2.0)
    plain, full = Technique("plain", 4, 3, 1.0, 1.0), Technique("full", 4, 1, 1.25, 1.0)
    assert step_usd((machine, plain, 2), 5) == (3 * 1 + 5) / 2
    assert cheapest(((machine,), (plain, full), 5)) == ("m", "full", 5)
    assert cheapest(((machine,), (plain, full), 2)) == ("m", "plain", 2)
    assert cheapest(((machine,), (replace(plain, fixed_bytes=9),), 2)) is None


def test_random_tables_ask_for_every_kind_of_choice():
    choices = [cheapest(table) for table in random_tables(60)]
    names = [choice and choice[1] for choice in choices]
    assert all(names.count(name) >= 5 for name in ("plain", "selective", "full", None))


def test_what_the_lab_says_of_two_machines_and_running_again():
    small, large = aws_machines()
    assert round(large.usd_per_hour / small.usd_per_hour, 2) == 1.25
    assert large.memory_bytes == 2 * small.memory_bytes and large.speed == small.speed
    for num_tokens in (1024, 4096, 16384):
        plain, full = gpt2_techniques(num_tokens)
        assert 1.31 < full.seconds_per_sequence / plain.seconds_per_sequence < 1.33
        assert full.bytes_per_sequence < 0.2 * plain.bytes_per_sequence
    names = [
        cheapest(((small, large), tuple(gpt2_techniques(num_tokens)), 16))[:2]
        for num_tokens in (1024, 4096, 16384, 32768)
    ]
    assert names == [
        ("A100 40GB", "plain"), ("A100 80GB", "plain"), ("A100 80GB", "plain"),
        ("A100 80GB", "full"),
    ]  # fmt: skip
