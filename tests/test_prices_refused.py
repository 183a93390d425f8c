"""Damaged tables and bad input: one sentence each, naming the file and line or the known values."""

import math
from datetime import date

import pytest

from utils.data import FOLDER, read_table
from utils.hardware import Chip
from utils.prices import (
    ElectricityPrice,
    PurchasePrice,
    RentalPrice,
    TrainingRun,
    break_even_hours,
    energy_kwh,
    find_chip,
    find_training_run,
    price_spread,
    rent_usd,
)

HEAD = "date,provider,chip,sku,usd_per_gpu_hour,kind,source,status,note"
LINE = "2026-11-09,RunPod,H100 SXM,secure,3.99,on-demand,vendors.json,R2,"
FIX = "`git checkout -- utils/data/rental_prices.csv` brings back the course's own table."


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "is missing"),
        (b"", "line 1: the column date is missing"),
        (f"{HEAD}\n".encode(), "has no rows"),
        (f"{HEAD.replace('kind', 'sort')}\n{LINE}".encode(), "line 1: the column kind is missing"),
        (f"{HEAD.replace(',', ';')}\n".encode(), "line 1: the column date is missing"),
        (f"{HEAD}\n{LINE}\n{LINE},x".encode(), "line 3: the number of cells differs"),
        (f"{HEAD}\n{LINE[:20]}".encode(), "line 2: the number of cells differs"),
        (f"{HEAD}\n\n{LINE.replace('3.99', '3,99')}".encode(), "line 3: the number of cells"),
        (f"{HEAD}\n{LINE.replace('3.99', 'abc')}".encode(), "line 2: 'abc' is no value for usd_"),
        (f"{HEAD}\n{LINE.replace('3.99', 'nan')}".encode(), "line 2: 'nan' is no value for usd_"),
        (f"{HEAD}\n{LINE.replace('3.99', '')}".encode(), "line 2: '' is no value for usd_per"),
        (f"{HEAD}\n{LINE.replace('3.99', '-1')}".encode(), "line 2: usd_per_gpu_hour is -1; it"),
        (f"{HEAD}\n{LINE.replace('11-09', '13-09')}".encode(), "line 2: '2026-13-09' is no value"),
        (f"{HEAD}\n{LINE.replace('vendors.json', ' ')}".encode(), "line 2: '' is no value for sou"),
        (f"{HEAD}\n{LINE.replace('R2', 'M')}".encode(), "line 2: status is 'M'; it must be one of"),
        (f"{HEAD}\n{LINE.replace('on-demand', 'od')}".encode(), "line 2: kind is 'od'; it must be"),
        (f'{HEAD}\n"{LINE}'.encode(), "line 2: unexpected end of data"),
        (b"\xff\xfe\x00", "cannot be read (UnicodeDecodeError)"),
    ],
)
def test_a_damaged_table_is_refused_in_one_sentence(tmp_path, content, what):
    if content is not None:
        (tmp_path / "rental_prices.csv").write_bytes(content)
    with pytest.raises(ValueError) as refused:
        read_table("rental_prices.csv", RentalPrice, tmp_path)
    message = str(refused.value)
    assert message.startswith(f"utils/data/rental_prices.csv {what}")
    assert message.endswith(f"; {FIX}") and "\n" not in message


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    text = f"{HEAD}\n{LINE}\n\n{LINE.replace('secure', '8x, all')}\n"
    text = text.replace("8x, all", '"8x, all"').replace("\n", "\r\n")
    (tmp_path / "rental_prices.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    first, second = read_table("rental_prices.csv", RentalPrice, tmp_path)
    assert (first.date, first.usd_per_gpu_hour, first.note) == (date(2026, 11, 9), 3.99, "")
    assert second.sku == "8x, all"


@pytest.mark.parametrize(
    ("name", "row_type"),
    [
        ("chips.csv", Chip),
        ("purchase_prices.csv", PurchasePrice),
        ("electricity_prices.csv", ElectricityPrice),
        ("training_runs.csv", TrainingRun),
    ],
)
def test_every_table_names_the_line_with_a_negative_number(tmp_path, name, row_type):
    head, first, *_ = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    cells = first.split(",")
    number = next(i for i, cell in enumerate(cells) if cell.replace(".", "").isdigit())
    cells[number] = "-5"
    (tmp_path / name).write_text(f"{head}\n{first}\n{','.join(cells)}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name} line 3: \w+ is -5; it must be above 0; "):
        read_table(name, row_type, tmp_path)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: RentalPrice.own("H100 SXM", -1), "usd_per_gpu_hour is -1; it must be above 0."),
        (lambda: RentalPrice.own("H100 SXM", math.nan), "usd_per_gpu_hour is nan; it must be"),
        (lambda: RentalPrice.own("H100 SXM", "2"), "Your own price is '2'; give dollars per"),
        (lambda: find_chip("H100"), r"no chip 'H100'; the known ones are: V100 32GB, T4, RTX"),
        (lambda: find_training_run("GPT-5"), "no run 'GPT-5'; the known ones are: Llama-2-70B,"),
        (lambda: price_spread("H100"), "No price of 'H100'; there are prices of: .*H100 SXM"),
        (lambda: price_spread("H100 SXM", "od"), "no kind 'od'; choose one of on-demand, spot"),
        (lambda: price_spread("H100 SXM", "spot", "2026-11-09"), "no spot price of 2026-11-09 for"),
        (lambda: price_spread("H100 SXM", as_of="today"), "Invalid isoformat string: 'today'"),
        (lambda: rent_usd(-1, 2), "gpu_hours is -1; it must be a number that is not below 0."),
        (lambda: rent_usd(1, "2"), "usd_per_gpu_hour is '2'; it must be a number"),
        (lambda: energy_kwh(1, math.inf), "watts is inf; it must be a number"),
        (lambda: energy_kwh(1, 700, pue=0.9), r"overhead \(PUE\) is 0.9; it must be 1 or more"),
        (lambda: break_even_hours(1, 1, 1, 1, utilisation=0), "utilisation is 0; it must be above"),
        (lambda: break_even_hours(1, 1, 1, 1, utilisation=1.1), "above 0 and at most 1"),
        (lambda: break_even_hours(-1, 1, 1, 1), "purchase_usd is -1; it must be"),
    ],
)
def test_bad_input_is_one_sentence(call, text):
    with pytest.raises(ValueError, match=text) as refused:
        call()
    assert "\n" not in str(refused.value)
