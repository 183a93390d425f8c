"""The hardware that the article names: dates, uses, and no figure that the table of chips lacks."""

from datetime import date

import pytest

from utils.data import FOLDER, read_table
from utils.hardware import find_chip
from utils.named_hardware import (
    ARTICLE_DATE,
    NAMED_HEADERS,
    UNKNOWN,
    NamedHardware,
    load_named_hardware,
    named_rows,
)

TABLE = "named_hardware.csv"
LINES = (FOLDER / TABLE).read_text(encoding="utf-8").splitlines()


def by_name():
    return {each.name: each for each in load_named_hardware()}


def test_everything_the_article_names_is_there_with_a_source_and_a_date():
    items = by_name()
    assert {
        "Maia 100", "MTIA v1", "MTIA v2", "Kunlun P800", "Sohu", "B200", "Jalapeño", "vast.ai",
    } <= set(items)  # fmt: skip
    assert sum(name.startswith("TPU") for name in items) >= 3
    assert len(items) == len(load_named_hardware())
    for each in items.values():
        assert len(each.source) > 8 and each.read_on <= date(2026, 11, 25)
        assert each.status in ("R", "R2")
        assert each.announced is None or date(2020, 1, 1) < each.announced <= each.read_on


def test_half_of_the_chips_named_for_training_only_serve():
    """Facts, section 5: MTIA twice, Sohu, and what OpenAI made since; none of them trains."""
    items = by_name()
    serving = {name for name, each in items.items() if each.use == "serves"}
    assert serving == {"MTIA v1", "MTIA v2", "Sohu", "Jalapeño"}
    assert not any(items[name].trains for name in serving) and items["B200"].trains
    later = {name for name, each in items.items() if each.after_article}
    assert later == {"Kunlun P800", "Jalapeño"} and date(2024, 8, 18) == ARTICLE_DATE


def test_figures_are_those_of_the_table_of_chips():
    for each in load_named_hardware():
        assert each.figures == (find_chip(each.chip) if each.chip else None)
        if each.figures:
            assert (each.figures.use == "serves") == (each.use == "serves")
    rows = {row[0]: row for row in named_rows()}
    assert all(len(row) == len(NAMED_HEADERS) for row in rows.values())
    assert rows["Maia 100"][5:8] == ("64", "1.80", "800")
    assert rows["B200"][5:8] == ("180", "8.00", "2,250")
    assert rows["Kunlun P800"][5:8] == rows["Jalapeño"][5:8] == (UNKNOWN,) * 3
    assert rows["Sohu"][5:8] == ("144", UNKNOWN, UNKNOWN)
    assert rows["vast.ai"][5:8] == ("-", "-", "-")
    assert rows["Jalapeño"][2] == "2026-06-24 (after the article)"
    assert rows["Sohu"][8] == "second-hand" and rows["vast.ai"][8] == "read at its source"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("2023-11-15", "2023-11-35", "line 2: '2023-11-35' is no value for announced"),
        ("2023-11-15", "", "line 2: Maia 100 has no date; a chip needs the day of its ann"),
        ("trains and serves", "dreams", "line 2: use is 'dreams'; it must be one of trains and"),
        ("trains and serves", "serves", "line 2: Maia 100 serves, but chips.csv says that it tra"),
        (",Maia 100,", ",Maia 300,", "line 2: There is no chip 'Maia 300'; the known ones are"),
        ("Microsoft,", ",", "line 2: '' is no value for maker"),
        (",R2,", ",M,", "line 2: status is 'M'; it must be one of R, R2"),
    ],
)
def test_a_damaged_table_is_refused_in_one_sentence(tmp_path, old, new, what):
    assert old in LINES[1]
    damaged = [LINES[0], LINES[1].replace(old, new, 1), *LINES[2:]]
    (tmp_path / TABLE).write_text("\n".join(damaged), encoding="utf-8")
    with pytest.raises(ValueError) as refused:
        read_table(TABLE, NamedHardware, tmp_path)
    message = str(refused.value)
    assert message.startswith(f"utils/data/{TABLE} {what}") and "\n" not in message
