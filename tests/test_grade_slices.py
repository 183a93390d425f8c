"""What of a notebook belongs to an answer, and what in it a person should see."""

import ast

import pytest

from tests.grade_rooms import LABS
from utils.grading.course import Asked
from utils.grading.screen import suspicions
from utils.grading.slices import slice_for

ASKED, LAB = Asked("01.1", "fine_tuning_bytes"), LABS["01"]
RIGHT = "def fine_tuning_bytes(config, blocks):\n    return {}\n"


def taken(*cells: str, asked: Asked = ASKED) -> str:
    """The statements that would run, the lab's own imports left out."""
    found = slice_for(asked, LAB, cells)
    return "\n".join(ast.unparse(s.node) for s in found.statements if s.cell >= 0)


def looks(*cells: str) -> list[str]:
    return suspicions(slice_for(ASKED, LAB, cells).statements, LAB)


def test_only_what_the_answer_uses_is_taken():
    helper = "def helper():\n    return SIZE"
    experiment = "config = train_for_hours()\nprint(config)"
    code = taken("SIZE = 4", helper, experiment, RIGHT.format("helper()"))
    assert code == f"SIZE = 4\n{helper}\n{RIGHT.format('helper()').strip()}"


def test_a_helper_below_the_answer_is_found():
    assert "helper" in taken(RIGHT.format("helper()"), "def helper():\n    return 1")


def test_of_two_answers_the_one_above_the_check_counts_as_in_run_all():
    check = 'check("01.1", fine_tuning_bytes)'
    assert taken(RIGHT.format(1), check, RIGHT.format(2)) == RIGHT.format(1).strip()


def test_an_answer_below_the_check_counts_when_a_stub_stands_above():
    stub = RIGHT.format("0").replace("return 0", 'raise NotImplementedError("your turn")')
    code = taken(stub, 'check("01.1", fine_tuning_bytes)', RIGHT.format(2))
    assert code.endswith("return 2")


@pytest.mark.parametrize("patch", [
    "import torch\ntorch.equal = print", "import utils.checks.engine as e\ne.judge = print",
    "import builtins\nbuiltins.len = print", "import torch\ntorch.set_num_threads(8)",
])  # fmt: skip
def test_what_changes_an_imported_module_is_left_behind(patch):
    code = taken(patch, RIGHT.format("torch.equal, e.judge, builtins.len"))
    assert "print" not in code and "set_num_threads" not in code


def test_what_fills_a_table_of_the_learner_comes_along():
    code = taken("sizes = {}", "sizes['a'] = 4", "sizes.update(b=8)", "other.clear()",
                 RIGHT.format("sizes"))  # fmt: skip
    assert "sizes['a'] = 4" in code and "sizes.update(b=8)" in code and "other" not in code


def test_a_parameter_of_the_same_name_brings_no_global_along():
    assert "expensive" not in taken("blocks = expensive()", RIGHT.format("blocks"))


def test_classes_constants_decorators_and_defaults_come_along():
    cells = ["import functools", "N = 3", "class Base: pass", "class Mine(Base):\n    size = N",
             "@functools.cache\n" + RIGHT.format("Mine")]  # fmt: skip
    assert all(word in taken(*cells) for word in ("functools", "N = 3", "class Base", "size = N"))


def test_an_answer_bound_by_assignment_is_one():
    code = taken("import functools", "fine_tuning_bytes = functools.partial(max, 1)")
    assert code.count("functools") == 2


def test_a_deleted_import_is_taken_from_the_lab():
    found = slice_for(ASKED, LAB, [RIGHT.format("count_parameters(config)")])
    own = [ast.unparse(s.node) for s in found.statements if s.cell < 0]
    assert own == ["from utils.costs import count_parameters"]


def test_a_missing_answer_says_what_is_missing_and_what_is_there():
    found = slice_for(ASKED, LAB, ["def mine(): pass", 'check("01.1", mine)'])
    assert not found.statements and not found.is_wrong
    assert "no `fine_tuning_bytes`" in found.reason and "names mine" in found.reason


def test_an_answer_that_is_no_python_is_wrong_and_others_are_not_hurt():
    broken = "def fine_tuning_bytes(config, blocks)\n    return 1"
    found = slice_for(ASKED, LAB, [broken])
    assert found.is_wrong and "(line 1 of the cell)" in found.reason
    assert slice_for(ASKED, LAB, ["def other(:", RIGHT.format(1)]).statements


@pytest.mark.parametrize("text", ["(" * 5000, "-" * 200_000 + "1", "x." * 50_000 + "x", "\0"])
def test_text_that_no_parser_likes_is_only_unreadable(text):
    assert not slice_for(ASKED, LAB, [text]).statements


@pytest.mark.parametrize(("body", "words"), [
    ("__import__('os')", "uses `__import__`"), ("config.__globals__", "uses `.__globals__`"),
    ("getattr(config, 'o' + 's')", "computed name"), ("open('solutions')", "uses `open`"),
    ("getattr(config, '__code__')", "uses `__code__`"), ("torch.sys.exit()", "uses `.sys`"),
    ("type('Yes', (), {'__eq__': max})", "defines `__eq__`"),
    ("sys._getframe()", "uses `sys`"), ("list(map(vars, [sys]))", "uses `sys`"),
])  # fmt: skip
def test_tools_that_no_answer_needs_are_named(body, words):
    assert any(words in each for each in looks("import torch", RIGHT.format(body)))


@pytest.mark.parametrize("cell", [
    "from utils.checks.engine import EXERCISES as torch", "import gc as torch",
    "import subprocess as torch", "import utils.grading.judge as torch", "import sys as torch",
    "from pathlib import Path as torch",
])  # fmt: skip
def test_modules_that_no_answer_needs_are_named(cell):
    assert looks(cell, RIGHT.format("torch"))


def test_an_ordinary_answer_is_not_suspected():
    used = "sys.maxsize + math.ceil(1) + np.sum(config.bias) + F.relu(Box().size)"
    cells = ["import math, itertools, sys\nimport numpy as np",
             "from torch.nn import functional as F",
             "class Box:\n    def __init__(self):\n        self.size = 1", RIGHT.format(used)]
    assert looks(*cells) == []
