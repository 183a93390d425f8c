"""A chain of layers under checkpoints: its costs, plans that are refused, the largest batch."""

import pytest

from utils.config import GPTConfig
from utils.predict_checkpoint import (
    chain_costs,
    largest_predicted_batch,
    predict_checkpointed_step,
)
from utils.predict_layers import block_cost, embed_cost, loss_cost


def test_costs_of_a_chain_tell_kept_from_rerun_layers():
    config = GPTConfig(3, 2, 16, 8, 64)
    embed, *blocks, loss = chain_costs(config, 2, 8, (0, (1, 2)))
    assert blocks[0] == block_cost(config, 2, 8)
    assert blocks[1] == block_cost(config, 2, 8, runs_again=True) != blocks[0]
    assert blocks[2] == block_cost(config, 2, 8, runs_again=True, stops_early=True)
    assert blocks[2].graph_peak_bytes < blocks[1].graph_peak_bytes
    assert (embed, loss) == (embed_cost(config, 2, 8), loss_cost(config, 2, 8))


@pytest.mark.parametrize("plan", [(), (0,), ((1,), (0,)), (0, (1, 2))])
def test_a_plan_of_other_blocks_is_refused(plan):
    with pytest.raises(ValueError, match="the model has 2 blocks"):
        predict_checkpointed_step(GPTConfig(2, 2, 16, 8, 64), 1, plan)


@pytest.mark.parametrize("plan", [(0, 1, 2), ((0,), (1,), (2,))])
def test_the_largest_batch_fits_and_one_more_does_not(plan):
    config = GPTConfig(3, 2, 16, 8, 64)
    peaks = {b: predict_checkpointed_step(config, b, plan).peak_bytes for b in range(1, 40)}
    for room_bytes in (peaks[1] - 1, peaks[1], peaks[2] - 1, peaks[17], peaks[17] + 1, peaks[38]):
        expected = max((b for b, peak in peaks.items() if peak <= room_bytes), default=0)
        assert largest_predicted_batch(config, plan, room_bytes) == expected
