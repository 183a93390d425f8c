"""The mark, the rounding, the tables: what a learner reads and what nbval's rules rely on."""

import datetime
import html
import re

import pytest
import torch

from utils import measured as measured_module
from utils.measured import MARK, measured, measured_text, measured_where, significant, table


@pytest.fixture
def bundles(monkeypatch):
    """The mime bundles that the functions under test display."""
    shown = []
    monkeypatch.setattr(measured_module, "publish", lambda data, _=None: shown.append(data))
    return shown


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (8.8, 3, "8.80"),
        (0.0123456, 3, "0.0123"),
        (999.96, 3, "1,000"),
        (9.999, 3, "10.0"),
        (1720320, 3, "1,720,000"),
        (1720320, 7, "1,720,320"),
        (5, 3, "5"),
        (-12.345, 3, "-12.3"),
        (0, 3, "0"),
        (0.0, 3, "0"),
        (1.23e-6, 3, "1.23e-06"),
        (8.4e23, 2, "8.4e+23"),
        (float("nan"), 3, "nan"),
        (float("inf"), 3, "inf"),
    ],
)
def test_significant_digits(value, digits, text):
    assert significant(value, digits) == text


def test_significant_needs_a_digit():
    with pytest.raises(ValueError, match="at least 1"):
        significant(3.0, 0)


def test_measured_brackets_numbers_texts_and_tensors():
    assert measured(8.8, "ms") == f"{MARK} 8.80 ms {MARK}"
    assert measured("AMD EPYC") == f"{MARK} AMD EPYC {MARK}"
    assert measured(torch.tensor(2.5), "GiB", digits=2) == f"{MARK} 2.5 GiB {MARK}"
    assert measured(True) == f"{MARK} True {MARK}"


@pytest.mark.parametrize("text", [f"a {MARK} b", "two\nlines", "two\rlines"])
def test_measured_refuses_what_would_escape_the_comparison(text):
    with pytest.raises(ValueError, match="one line without the mark"):
        measured(text)
    with pytest.raises(ValueError, match="one line without the mark"):
        measured(1.0, unit=text)


def test_where_names_processor_threads_dtype_and_date():
    text = measured_where("bfloat16", today=datetime.date(2026, 11, 23))
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    assert text.startswith(f"{MARK} ")
    assert text.endswith(f", {threads} thread{plural}, bfloat16, 2026-11-23 {MARK}")
    assert measured_where(torch.float32, today="2026-11-23").endswith(
        f", float32, 2026-11-23 {MARK}"
    )
    assert str(datetime.date.today().year) in measured_where()


def test_measured_text_can_be_cut_out_whole(bundles):
    measured_text("Sample", f"a <b> & \x1b[0m {MARK} end\nsecond line")
    (bundle,) = bundles
    assert bundle["text/plain"] == "[measured] Sample"
    found = re.search(r'<pre class="measured">([^<]*)</pre>', bundle["text/html"])
    assert html.unescape(found[1]) == "a <b> & \ufffd[0m \ufffd end\nsecond line"


def test_table_formats_aligns_and_marks(bundles, capsys):
    rows = [["Adam", 12582912, 0.5, measured(8.8, "ms")], ["<SGD>", 7, 12345.6, "-"]]
    table(["recipe", "bytes", "share", "time"], rows, "Bytes by recipe")
    assert capsys.readouterr().out == "Bytes by recipe\n"
    text, page = bundles[0]["text/plain"], bundles[0]["text/html"]
    assert text.splitlines() == [
        "recipe | bytes | share | time",
        f"Adam | 12,582,912 | 0.5 | {MARK} 8.80 ms {MARK}",
        "<SGD> | 7 | 12,346 | -",
    ]
    assert f'<td class="measured">{MARK} 8.80 ms {MARK}</td>' in page
    assert '<td style="text-align: left">&lt;SGD&gt;</td>' in page
    assert '<td style="text-align: right">12,582,912</td>' in page
    assert '<th scope="col" style="text-align: right">time</th>' in page


def test_table_text_is_the_same_for_measurements_of_another_length(bundles):
    rule = re.compile(f"{MARK}[^{MARK}\n]*{MARK}")
    for value in (8.8, 1234567.0):
        table(["name", "time"], [["a", measured(value, "ms")], ["b", "c"]], "Times")
    short, long = (rule.sub("", bundle["text/plain"]) for bundle in bundles)
    assert short == long


@pytest.mark.parametrize(
    ("rows", "caption", "message"),
    [([], "T", "no rows"), ([["a", "b"]], "T", "1 headers but the row"), ([["a"]], " ", "caption")],
)
def test_table_errors_say_what_to_do(rows, caption, message):
    with pytest.raises(ValueError, match=message):
        table(["only"], rows, caption)


def test_without_a_notebook_the_text_is_printed(capsys):
    measured_text("Environment", "Python")
    assert capsys.readouterr().out == "[measured] Environment\n"
