"""The fit of a link: exact on exact data, steady under noise, honest about its errors."""

import random

import pytest

from utils.simulate.calibration import calibrate, fit_errors, median_error, predicted_seconds
from utils.simulate.links import Link
from utils.simulate.traffic import traffic

SIZES = [4.0**power for power in range(1, 14)]


def all_reduce_of_four(num_bytes):
    return traffic("all-reduce", "ring", num_bytes, 4)


def test_exact_measurements_give_the_link_back():
    truth = Link(3e-4, 7e8)
    for traffic_of in (lambda size: traffic("broadcast", "tree", size, 2), all_reduce_of_four):
        rows = [(size, predicted_seconds(truth, size, traffic_of)) for size in SIZES]
        link = calibrate(rows, traffic_of)
        assert link.latency_s == pytest.approx(truth.latency_s, rel=1e-6)
        assert link.bytes_per_s == pytest.approx(truth.bytes_per_s, rel=1e-6)
        assert median_error(link, rows, traffic_of) < 1e-6


def test_two_messages_are_enough():
    link = calibrate([(1000.0, 0.002), (5000.0, 0.004)])
    assert (link.latency_s, link.bytes_per_s) == (pytest.approx(0.0015), pytest.approx(2e6))


def test_one_disturbed_size_and_disturbed_repeats_do_not_move_the_line():
    truth = Link(2e-4, 5e8)
    for seed in range(20):
        draw = random.Random(seed)
        rows = []
        for size in SIZES:
            for _ in range(7):
                noise = 1 + 0.05 * draw.random()
                rows.append((size, truth.seconds(size) * (9 if draw.random() < 0.2 else noise)))
        wrong = draw.choice(SIZES)
        rows = [(size, 4 * seconds if size == wrong else seconds) for size, seconds in rows]
        link = calibrate(rows)
        assert link.latency_s == pytest.approx(truth.latency_s, rel=0.1), seed
        assert link.bytes_per_s == pytest.approx(truth.bytes_per_s, rel=0.1), seed
        errors = fit_errors(link, rows)
        assert errors[wrong] < -0.6  # the fit says so: the measured time is far above the line
        assert median_error(link, rows) < 0.05


def test_errors_have_a_sign():
    link = Link(0.0, 100.0)
    errors = fit_errors(link, [(100.0, 0.5), (100.0, 0.5), (200.0, 4.0)])
    assert errors == {100.0: pytest.approx(1.0), 200.0: pytest.approx(-0.5)}


def test_nothing_becomes_negative():
    bandwidth_only = calibrate([(100.0, 0.01), (1000.0, 0.5)])  # would want a negative latency
    assert bandwidth_only.latency_s == 0.0 and bandwidth_only.bytes_per_s > 0
    latency_only = calibrate([(100.0, 0.5), (1000.0, 0.4)])  # would want negative time per byte
    assert latency_only.latency_s > 0 and latency_only.bytes_per_s == float("inf")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "at least 2 different sizes, not 0"),
        ([(8.0, 1.0), (8.0, 2.0)], "at least 2 different sizes, not 1"),
        ([(8.0, 1.0), (16.0, 0.0)], "both above 0"),
        ([(0.0, 1.0), (16.0, 1.0)], "both above 0"),
        ([(8.0, float("nan")), (16.0, 1.0)], "both above 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        calibrate(rows)
