"""The code keeps the course's house rules: sizes, types, docstrings, layers, no place of a machine.

Each rule (`tests/code_rules.py`) is also tried on a bad file.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests import code_rules
from utils.build.rules import place_problems

ROOT = Path(__file__).resolve().parents[1]
COURSE = sorted((ROOT / "utils").rglob("*.py"))
TESTS = sorted([*(ROOT / "tests").rglob("*.py"), ROOT / "conftest.py"])
RULES = [
    code_rules.size_problems,
    code_rules.hint_problems,
    code_rules.docstring_problems,
    code_rules.global_problems,
    code_rules.unit_problems,
]

# What stands above the instruments and the techniques: it uses them, never the other way round.
ABOVE = [
    *("notebooks", "labs", "solutions", "sources", "tests"),
    *("utils.checks", "utils.experiments", "utils.evidence", "utils.claims", "utils.grading"),
    *("utils.grade", "utils.trainer", "utils.train", "utils.planner", "utils.record"),
    *("utils.build", "utils.slides", "utils.ladder_report", "utils.bench"),
]
# Words for a sentence and whose file a frame is in: leaves, which import nothing of the course.
LEAVES = ["utils.checks.helpers", "utils.checks.blame"]
SHARING = ["torch.distributed", "torch.amp", "torch.utils.checkpoint", "torch.nn.parallel"]
INSTRUMENTS = (
    "memory* timing costs measured plot* live explorer corpus hardware price* predict* roofline*"
)
LAYERS = [  # files, what they never import, and what of it they may
    (["model.py", "config.py"], ["utils", *SHARING], ["utils.config"]),
    (["techniques/*.py"], ABOVE, []),
    (["ranks/*.py"], [*ABOVE, "utils.techniques", "utils.peers"], LEAVES),
    (["simulate/*.py"], [*ABOVE, "utils.techniques", "utils.peers"], []),
    ([f"{name}.py" for name in INSTRUMENTS.split()], [*ABOVE, "utils.peers"], []),
    (["**/*.py"], ["notebooks", "labs", "solutions", "sources", "tests", "conftest"], []),
]


def name_of(path: Path) -> str:
    """A file's name from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> str:
    """A file's text."""
    return path.read_text(encoding="utf-8")


def no_problems(found: list[str]) -> None:
    """Fail with every sentence in `found`."""
    assert not found, "\n  ".join(["", *found])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_of_the_course(rule) -> None:
    no_problems([text for path in COURSE for text in rule(name_of(path), read(path))])


def test_the_tests_are_short_and_say_what_they_test() -> None:
    no_problems([t for p in TESTS for t in code_rules.size_problems(name_of(p), read(p))])
    silent = [p for p in TESTS if not read(p).lstrip("#! \n").startswith(('"""', '"', "'"))]
    assert [name_of(path) for path in silent if path.name != "__init__.py"] == []


@pytest.mark.parametrize(
    ("files", "forbidden", "allowed"), LAYERS, ids=[files[0] for files, _, _ in LAYERS]
)
def test_no_layer_imports_what_stands_above_it(
    files: list[str], forbidden: list[str], allowed: list[str]
) -> None:
    paths = sorted({path for pattern in files for path in (ROOT / "utils").glob(pattern)})
    assert len(paths) >= len(files)
    no_problems(
        [
            text
            for path in paths
            for text in code_rules.layer_problems(name_of(path), read(path), forbidden, allowed)
        ]
    )


def committed() -> list[Path]:
    """The files that git keeps or would keep; skips where there is no git."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this copy of the course is no git repository")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if (ROOT / name).is_file()]


def test_no_committed_file_names_a_place() -> None:
    found = []
    for path in committed():
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{name_of(path)}: {problem}" for problem in own_places(text)]
    no_problems(found)


def own_places(text: str) -> list[str]:
    """What `place_problems` says but for general folders, which tests and programs may name."""
    root = str(ROOT)  # itself perhaps in such a folder
    general = root.join(part.replace("/tmp", "") for part in text.split(root))
    return [
        problem
        for problem in place_problems(general, ROOT)
        if "a package registry" in problem or root in problem or str(Path.home()) in problem
    ]


GOOD = '''"""What it does."""

def double(length_bytes: int) -> int:
    """Twice as many."""
    return 2 * length_bytes
'''
BAD = [  # a rule, a file, words of the one sentence
    (0, GOOD + "# more\n" * 196, "has 201 lines; allowed are 200"),
    (0, "def f():\n" + "    x = 1\n" * 40, "f has 41 lines of its own"),
    (0, "class A:\n    def f(self):\n" + "        x = 1\n" * 40, "f has 41 lines of its own"),
    (1, "def f(x) -> int:\n    return x\n", "f: x has no type"),
    (1, "def f(*x: int, **y) -> int:\n    return x\n", "f: y has no type"),
    (1, "def f(x: int):\n    return x\n", "f: its result has no type"),
    (1, "def f() -> None:\n    def g(x) -> int:\n        return x\n", "g: x has no type"),
    (2, "x = 1\n", "does not say at its top"),
    (2, '"""Top."""\ndef f():\n    return 1\n', "f has no docstring"),
    (2, '"""Top."""\nclass A:\n    """A."""\n    def f(self):\n        pass\n', "f has no doc"),
    (3, "rank = 0\n", "rank is a global"),
    (3, "_world_size: int = 2\n", "_world_size is a global"),
    (3, "GROUP = None\n", "GROUP is a global"),
    (4, "def f(pause: float) -> None: ...\n", "pause is a number without a unit; add _s"),
    (4, "class A:\n    peak_memory: int\n", "peak_memory is a number without a unit; add _bytes"),
]


@pytest.mark.parametrize(("rule", "text", "words"), BAD, ids=lambda part: str(part)[:20])
def test_each_rule_finds_what_it_forbids(rule: int, text: str, words: str) -> None:
    assert all(each("a.py", GOOD) == [] for each in RULES)
    (problem,) = RULES[rule]("a.py", text)
    assert words in problem


def test_what_the_rules_allow() -> None:
    closure = "def f():\n    def g():\n" + "        x = 1\n" * 30 + "    y = 2\n" * 30
    assert code_rules.size_problems("a.py", closure) == []
    assert code_rules.global_problems("a.py", "Group = ProcessGroup | None\nGROUPS = (1,)\n") == []
    assert code_rules.unit_problems("a.py", "def f(pause_s: float, memory: str): ...\n") == []
    hidden = '"""Top."""\nclass _A:\n    def f(self):\n        pass\ndef _g():\n    pass\n'
    assert code_rules.docstring_problems("a.py", hidden) == []


@pytest.mark.parametrize(
    "line",
    [
        "import utils.experiments",
        "from utils.experiments.ladder import CONFIG",
        "from utils import experiments",
        "def f():\n    from utils.experiments import ladder",
    ],
)
def test_an_import_of_an_upper_layer_is_found(line: str) -> None:
    (problem,) = code_rules.layer_problems("a.py", line, ABOVE, LEAVES)
    assert "utils.experiments" in problem
    for fine in ("import utils.experimental", "from utils.checks.helpers import one_line"):
        assert code_rules.layer_problems("a.py", fine, ABOVE, LEAVES) == []


def test_a_place_is_found() -> None:
    assert own_places("see /usr/bin and /home/ada\n") == []
    for text in (f"in {ROOT}/utils", "https://py" + "pi.org/simple"):
        assert len(own_places(f"fine\n{text}\n")) == 1
