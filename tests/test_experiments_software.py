"""Optimizers in a race, small: three of them, tuned alike, and the table of who arrives when."""

import math

import pytest
import torch

from utils.config import GPTConfig
from utils.corpus import load_corpus
from utils.experiments import algorithms, software
from utils.experiments.algorithms import (
    ADAMW,
    AS_IT_COMES,
    MUON,
    Contender,
    Curve,
    Track,
    algorithm_sweep,
    best_rate,
)
from utils.experiments.software import CHOSEN, Racer, race, race_rows
from utils.measured import MARK
from utils.plots import new_figure, png_of
from utils.recorded import RecordedRun
from utils.recorded_rows import rows_problem
from utils.techniques.muon import Muon

TINY = GPTConfig(1, 2, 16, 16, 256)
TRACK = Track(TINY, batch_size=4, num_steps=12, every=4, warmup_steps=2, num_seeds=2,
              tried={ADAMW: (2e-3, 1e-5), MUON: (1e-4, 2e-2)})  # fmt: skip


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(max_bytes=200_000)


def run_of(name, rows):
    return RecordedRun("CPU Y", "cpu", "Linux", "2.13.0", "2026-11-24", "abc", {name: rows})


# Attention


# Compiling


# Algorithms


def test_steps_to_a_loss_are_read_off_the_curve():
    curve = Curve((10, 20, 30, 40), (4.0, 3.0, 3.5, 2.5))
    assert curve.steps_to(4.5) == 10
    assert curve.steps_to(3.25) == 17.5
    assert curve.steps_to(3.0) == 20
    assert curve.steps_to(2.75) == 37.5
    assert curve.steps_to(2.4) is None
    assert Curve((), ()).steps_to(1.0) is None


def test_a_contender_warms_up_learns_and_repeats_itself(corpus):
    one = Contender(AS_IT_COMES, 1e-2, TRACK, corpus, seed=0)
    before = one.validation_loss()
    one()
    assert one.optimizers[0].param_groups[0]["lr"] == 5e-3
    one()
    assert one.optimizers[0].param_groups[0]["lr"] == 1e-2
    curve = one.curve()
    assert curve.steps == (4, 8, 12) and curve.losses[-1] < before
    again = Contender(AS_IT_COMES, 1e-2, TRACK, corpus, seed=0).curve()
    assert again == curve
    assert Contender(AS_IT_COMES, 1e-2, TRACK, corpus, seed=1).curve() != curve
    short = Contender(AS_IT_COMES, 1e-2, TRACK, corpus, seed=0).curve(until=curve.losses[0])
    assert short.steps == (4,)
    assert Contender(AS_IT_COMES, 1e-2, TRACK, corpus, seed=0).end_loss() == curve.losses[-1]


def test_muon_gets_the_matrices_and_adamw_the_rest(corpus):
    muon, beside = Contender(MUON, 0.02, TRACK, corpus, seed=0).optimizers
    assert isinstance(muon, Muon) and isinstance(beside, torch.optim.AdamW)
    assert len(muon.param_groups[0]["params"]) == 4
    (alone,) = Contender(ADAMW, 0.003, TRACK, corpus, seed=0).optimizers
    assert isinstance(alone, torch.optim.AdamW)


def test_the_sweep_is_fair_and_its_target_is_reached_by_the_baseline(monkeypatch, corpus):
    monkeypatch.setattr(algorithms, "load_corpus", lambda: corpus)
    rows = algorithm_sweep("cpu", TRACK)
    assert rows_problem("algorithms", rows) == ""
    by_name = {row["name"]: row for row in rows}
    assert list(by_name) == [AS_IT_COMES, ADAMW, MUON]
    assert by_name[ADAMW]["num_trials"] == by_name[MUON]["num_trials"] == 2
    assert by_name[AS_IT_COMES]["num_trials"] == 0
    assert by_name[ADAMW]["learning_rate"] == 2e-3 and by_name[MUON]["learning_rate"] == 2e-2
    assert by_name[AS_IT_COMES]["num_reached"] == 2
    assert max(by_name[AS_IT_COMES]["tokens"]) == 12 * 4 * 16  # the slowest, at its very end
    for row in rows:
        assert len(row["tokens"]) == row["num_reached"] and row["num_seeds"] == 2
        assert all(0 < tokens <= 12 * 64 for tokens in row["tokens"])


def test_everyone_tunes_with_as_many_trials_on_a_seed_of_its_own(corpus):
    assert len(algorithms.TRIED[ADAMW]) == len(algorithms.TRIED[MUON])
    assert algorithms.TUNING_SEED >= max(algorithms.CPU_TRACK.num_seeds, 3)
    assert best_rate(ADAMW, TRACK, corpus, "cpu") == 2e-3
    for name, rate in CHOSEN.items():
        tried = algorithms.TRIED.get(name, (algorithms.DEFAULT_RATE,))
        assert rate in tried


def test_a_race_ends_at_the_target_and_its_table_is_measured(corpus):
    racers = race(corpus, TRACK)
    assert list(racers) == [AS_IT_COMES, ADAMW, MUON]
    base = racers[AS_IT_COMES]
    assert base.steps <= 12 and base.curve.steps[-1] == 12
    target = base.curve.losses[-1]
    for racer in racers.values():
        last = racer.curve.losses[-1]
        assert (racer.steps is None) == (last > target)
        assert racer.curve.steps[-1] == 12 or last <= target
    rows = race_rows(racers)
    assert all(len(row) == len(software.RACE_HEADERS) for row in rows)
    assert all(MARK in cell for row in rows for cell in row[2:])
    figure = new_figure()
    software.draw_race(figure.subplots(), racers)
    assert png_of(figure)


def test_who_does_not_arrive_is_said():
    curve = Curve((10, 20), (3.0, 2.0))
    racers = {
        AS_IT_COMES: Racer(AS_IT_COMES, 1e-3, curve, 20.0, 0.5, 100),
        MUON: Racer(MUON, 1e-2, Curve((10, 20), (4.0, 3.0)), None, 0.5, 100),
    }
    rows = race_rows(racers)
    assert rows[0][3] == f"{MARK} 2,000 {MARK}" and rows[0][5] == f"{MARK} 10.0 {MARK}"
    assert rows[0][6] == f"{MARK} 1.0 times {MARK}"
    assert rows[1][2:4] == (f"{MARK} not reached {MARK}",) * 2


def test_algorithm_rows_in_words():
    base = {"name": AS_IT_COMES, "num_trials": 0, "learning_rate": 1e-3, "target_loss": 2.0,
            "tokens": [900.0, 1000.0, 1100.0], "num_reached": 3, "num_seeds": 3, "step_s": 0.5,
            "tokens_per_step": 100}  # fmt: skip
    rows = [base, base | {"name": MUON, "num_trials": 5, "tokens": [500.0], "num_reached": 1},
            base | {"name": ADAMW, "tokens": [], "num_reached": 0}]  # fmt: skip
    assert rows_problem("algorithms", rows) == ""
    found = list(software.algorithm_rows([run_of("algorithms", rows)]))
    assert all(len(cells) == len(software.ALGORITHM_HEADERS) for cells in found)
    assert found[0][4:] == ("1,000 (900 to 1,100)", "3 of 3", "500", "5.00", "1.00 times")
    assert found[1][4:] == ("500 (500 to 500)", "1 of 3", "500", "2.50", "2.00 times")
    assert found[2][4:] == ("not reached", "0 of 3", "500", "-", "-")
    assert math.isfinite(software.tokens_of(rows, AS_IT_COMES))
    assert software.tokens_of(rows, ADAMW) is None
