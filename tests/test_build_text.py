"""From a source to cells: stubs and solutions, code shown by reference, and every refusal."""

from __future__ import annotations

import inspect
from pathlib import Path

import nbformat
import pytest

from utils import my_labs
from utils.build import plan as build_plan
from utils.build import show as build_show
from utils.build import text as build_text
from utils.build.plan import BuildError
from utils.build.rules import leak_problems

REPOSITORY = Path(__file__).resolve().parents[1]
LAB = """# %% [markdown]
# # A lab

# %% [markdown] tags=["solution"]
# The trick is to think about it.

# %% tags=["lab"]
note = "only for learners"

# %%
def triple(x):
    if x:
        ### BEGIN SOLUTION
        secret_number_of_times = 3
        return secret_number_of_times * x
        ### END SOLUTION
    return 0

# %%
print(triple(0))
"""
REGION = "# %%\ndef f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n"


def drafts(source: str, root: Path, name: str = "lab_01_a") -> list[build_plan.Draft]:
    """The drafts of a source text."""
    path = root / "sources" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return build_text.drafts_of(path, root)


def test_lab_has_stubs_and_solution_has_no_markers(tmp_path: Path) -> None:
    lab, solution = drafts(LAB, tmp_path)
    texts = [[cell.source for cell in draft.notebook.cells] for draft in (lab, solution)]
    assert texts[0] == [
        "# A lab",
        'note = "only for learners"',
        'def triple(x):\n    if x:\n        raise NotImplementedError("your turn")\n    return 0',
        "print(triple(0))",
    ]
    assert texts[1][1:3] == [
        "The trick is to think about it.",
        "def triple(x):\n    if x:\n        secret_number_of_times = 3\n"
        "        return secret_number_of_times * x\n    return 0",
    ]
    assert lab.cell_numbers == (1, 3, 4, 5) and solution.cell_numbers == (1, 2, 4, 5)
    for draft in (lab, solution):
        nbformat.validate(draft.notebook)
    assert leak_problems(lab.notebook, LAB) == []
    assert len(leak_problems(solution.notebook, LAB)) == 3


def test_two_regions_in_one_cell(tmp_path: Path) -> None:
    second = REGION.split("\n", 1)[1].replace("f()", "g()").replace("    ", "\t")
    lab, solution = drafts(REGION + second, tmp_path)
    stub = build_text.STUB
    assert lab.notebook.cells[0].source == f"def f():\n    {stub}\ndef g():\n\t{stub}"
    assert solution.notebook.cells[0].source == "def f():\n    return 1\ndef g():\n\treturn 1"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1\n", "does not begin with `# %%`"),
        ("# %%\nx = 1\n", "has no region"),
        ('# %% tags=["lab"] [markdown]\n# text\n' + REGION, "cell 1 (`# text`): the header is"),
        ("# %% [markdwon]\n# text\n" + REGION, "(title: [markdwon]); remove that"),
        ('# %% tags=["solutions"]\nx = 1\n' + REGION, "unknown tag solutions; use lab, raises"),
        (REGION + "# %%\n", "cell 2 (``): the cell is empty"),
        ("# %% [raw]\n# x\n" + REGION, "raw cells are not used"),
        (REGION.replace("    ", ""), "must stand inside a function"),
        (REGION.replace("    ### END", "  ### END"), "at the same indentation"),
        (REGION.replace("    ### END SOLUTION\n", ""), "`### BEGIN SOLUTION` has no partner"),
        (REGION.replace("    ### BEGIN SOLUTION\n", ""), "`### END SOLUTION` has no partner"),
        (REGION.replace("return 1", "### BEGIN SOLUTION"), "do not nest"),
        (REGION.replace("### BEGIN", "# begin"), "write exactly"),
        (REGION.replace("SOLUTION\n", "SOLUTION:\n", 1), "write exactly"),
        ("# %% [markdown]\n# ### BEGIN SOLUTION\n" + REGION, "in a code cell"),
        ("# %%\n# show utils.x\n#show: utils.x\n" + REGION, "cannot be read"),
        ("# %%\n# show: numpy.mean\n" + REGION, "only functions and classes of utils/"),
        ("# %%\n# show: utils.nothing.f\n" + REGION, "no file utils/nothing.py"),
    ],
)
def test_refusals_of_a_lab(source: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        drafts(source, tmp_path)
    assert words in str(caught.value) and str(caught.value).startswith("sources/lab_01_a.py")


def test_refusals_of_a_lesson(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="this is a lesson"):
        drafts(REGION, tmp_path, "01_a")
    with pytest.raises(BuildError, match="unknown tag lab; use raises-exception"):
        drafts('# %% tags=["lab"]\nx = 1\n', tmp_path, "01_a")
    (tmp_path / "sources" / "01_a.py").write_bytes(b"# %%\n\xff\n")
    with pytest.raises(BuildError, match="save it as UTF-8"):
        build_text.drafts_of(tmp_path / "sources" / "01_a.py", tmp_path)


def test_cells_are_stable_and_plain(tmp_path: Path) -> None:
    source = "# %%\n# copy the weights\n# %time\nx = 1\n\n\n# %%\nx\n\n# %%\nx\n"
    (draft,) = drafts(source, tmp_path, "01_a")
    assert draft.notebook == drafts(source, tmp_path, "01_a")[0].notebook
    cells = draft.notebook.cells
    assert cells[0].source == "# copy the weights\n# %time\nx = 1"  # comments stay comments
    assert cells[2].id == f"{cells[1].id}-2" and all(cell.metadata == {} for cell in cells)
    longer = drafts("# %%\nnew = 1\n\n" + source, tmp_path, "01_a")[0].notebook.cells
    assert [cell.id for cell in longer[1:]] == [cell.id for cell in cells]
    assert draft.notebook.metadata.language_info == {"name": "python"}


@pytest.mark.parametrize("module", [my_labs, build_text, build_plan])
def test_shown_code_is_what_inspect_finds(module: object) -> None:
    members = [m for m in vars(module).values() if getattr(m, "__module__", "") == module.__name__]
    shown = [m for m in members if inspect.isfunction(m) or inspect.isclass(m)]
    assert len(shown) >= 5
    for member in shown:
        name = f"{module.__name__}.{member.__name__}"
        assert build_show.source_of(name, REPOSITORY) == inspect.getsource(member).rstrip("\n")


def test_show_methods_and_cut_docstrings(tmp_path: Path) -> None:
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "tiny.py").write_text(
        'class Box:\n    """A box."""\n\n    @property\n    def size(self):\n'
        '        """Size\n        in bytes."""\n        return 1\n\n'
        'class Empty(Exception):\n    """Nothing."""\n\n\ndef tight(): """One."""; return 1\n'
    )

    def shown(name: str) -> str:
        return build_show.expand(f"import a\n# show: utils.tiny.{name}", tmp_path)[9:]

    assert shown("Box.size") == (
        '@property\ndef size(self):\n    """Size\n    in bytes."""\n    return 1'
    )
    assert shown("Box.size without docstring") == "@property\ndef size(self):\n    return 1"
    assert shown("Box without docstring").startswith("class Box:\n    @property\n")
    assert shown("Empty without docstring") == "class Empty(Exception):\n    pass"
    for name, words in (
        ("tight without docstring", "shares its line"),
        ("Box.sizes", "did you mean `size`"),
        ("other", "defines no `other`; name a function or class"),
    ):
        with pytest.raises(BuildError, match=words):
            shown(name)
    (tmp_path / "utils" / "tiny.py").write_text("def f(:\n")
    with pytest.raises(BuildError, match=r"tiny.py is not valid Python \(line 1"):
        shown("f")
