"""The stored notebooks are what the sources give, were really run, and hide nothing from nbval.

Each rule is also tried on notebooks that break it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from utils.build import main as build
from utils.build import rules as build_rules
from utils.build.plan import FOLDERS

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "sources").glob("*.py"))
NOTEBOOKS = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.ipynb"))]
LABS = [path for path in NOTEBOOKS if path.parent.name == "labs"]
RULES = [
    build_rules.execution_problems,
    build_rules.exemption_problems,
    build_rules.chance_problems,
    build_rules.ending_problems,
]


def name_of(path: Path) -> str:
    """The name of a file in a test's id and message."""
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> NotebookNode:
    """A stored notebook."""
    return nbformat.read(path, as_version=4)


def no_problems(found: list[str], path: Path) -> None:
    """Fail with every sentence in `found`."""
    assert not found, "\n  ".join([f"{name_of(path)}:", *found])


def test_stored_notebooks_are_what_the_sources_give() -> None:
    if not SOURCES:
        pytest.skip("sources/ is empty: there is nothing to compare")
    problems = build.check(ROOT)
    assert not problems, "\n  ".join(["`make build` has to be run:", *problems])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_rule(path: Path, rule: Callable[[NotebookNode], list[str]]) -> None:
    no_problems(rule(read(path)), path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_size_and_places(path: Path) -> None:
    size = path.stat().st_size
    assert size <= build_rules.MAX_FILE_BYTES, f"{name_of(path)} has {size:,} bytes"
    no_problems(build_rules.place_problems(build_rules.text_of(read(path)), ROOT), path)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_names_no_place(path: Path) -> None:
    no_problems(build_rules.place_problems(path.read_text(encoding="utf-8"), ROOT), path)


@pytest.mark.parametrize("path", LABS, ids=name_of)
def test_lab_has_stubs_and_no_solution(path: Path) -> None:
    lab = read(path)
    source = (ROOT / "sources" / f"{path.stem}.py").read_text(encoding="utf-8")
    no_problems(build_rules.leak_problems(lab, source), path)
    assert build_rules.sections(lab, "## Exercise"), f"{name_of(path)} has no `## Exercise`"
    no_problems(build_rules.stub_problems(lab), path)


def strangers(root: Path) -> list[str]:
    """What lies in a built folder and is no notebook, but for the instructor's guide."""
    paths = [path for folder in FOLDERS for path in sorted((root / folder).iterdir())]
    # JupyterLab makes the folder of checkpoints; git ignores it.
    others = [p for p in paths if p.suffix != ".ipynb" and p.name != ".ipynb_checkpoints"]
    names = [path.relative_to(root).as_posix() for path in others]
    return [name for name in names if name != "notebooks/instructor_guide.md"]


def test_built_folders_hold_only_notebooks() -> None:
    assert not strangers(ROOT), f"remove {', '.join(strangers(ROOT))}"


def test_a_stranger_in_a_built_folder_is_found(tmp_path: Path) -> None:
    for folder in FOLDERS:
        (tmp_path / folder / ".ipynb_checkpoints").mkdir(parents=True)
        for name in ("00_x.ipynb", "instructor_guide.md"):
            (tmp_path / folder / name).touch()
    for name in ("notebooks/guide.md", "notebooks/instructor_guide.md.orig", "labs/run.log"):
        (tmp_path / name).touch()
    assert strangers(tmp_path) == [
        "notebooks/guide.md",
        "notebooks/instructor_guide.md.orig",
        "labs/instructor_guide.md",
        "labs/run.log",
        "solutions/instructor_guide.md",
    ]


def ran(
    source: str, *outputs: NotebookNode, count: int | None = 1, **metadata: object
) -> NotebookNode:
    """A notebook of one cell as the build would store it."""
    cell = new_code_cell(source, execution_count=count, outputs=list(outputs), metadata=metadata)
    about = {
        "kernelspec": {"name": "python3", "display_name": "Python"},
        "language_info": {"name": "python"},
    }
    return new_notebook(cells=[cell], metadata=nbformat.from_dict(about))


def stream(text: str, name: str = "stdout") -> NotebookNode:
    """A printed text."""
    return new_output("stream", text=text, name=name)


def shown(data: dict[str, object]) -> NotebookNode:
    """A displayed bundle."""
    return new_output("display_data", data=data)


ERROR = new_output("error", ename="KeyError", evalue="'x'", traceback=[])
WIDGET = shown({build_rules.WIDGET_VIEW: {}, "text/plain": "IntSlider()"})
BROKEN = [
    (0, ran("x", count=None), "execution count None, not 1"),
    (0, ran("x", count=3), "execution count 3, not 1"),
    (0, ran("x", ERROR), "shows an error: KeyError"),
    (0, ran("x", stream("UserWarning", "stderr")), "wrote to stderr: UserWarning"),
    (1, ran("x", tags=["nbval-ignore-output"]), "carries nbval-ignore-output"),
    (1, ran("# NBVAL_SKIP\nx"), "carries # NBVAL_SKIP"),
    (2, ran("x", WIDGET), "stores application/vnd.jupyter.widget-view+json"),
    (2, ran("x", shown({"image/svg+xml": "<svg/>"})), "image/svg+xml"),
    (2, ran("x", shown({"text/plain": "<A at 0x7f>"})), "shows a memory address"),
    (2, ran("x", execution={"iopub.status.busy": "now"}), "stores execution times"),
    (3, ran("plot();"), "ends with a semicolon"),
    (3, ran("plt.plot([1])"), "ends with a bare plt.plot"),
    (3, ran("x = 1\naxes.plot([1], [2])"), "ends with a bare axes.plot"),
    (3, ran("%matplotlib inline"), "is not plain Python"),
]


@pytest.mark.parametrize(("rule", "notebook", "words"), BROKEN)
def test_rules_find_what_they_forbid(rule: int, notebook: NotebookNode, words: str) -> None:
    assert RULES[rule](ran("x = 1", stream("1\n"))) == []
    (problem,) = RULES[rule](notebook)
    assert words in problem


def test_rules_allow_an_announced_error_and_find_wrong_metadata() -> None:
    assert build_rules.execution_problems(ran("x", ERROR, tags=["raises-exception"])) == []
    assert build_rules.ending_problems(ran("plt.show()")) == []
    notebook = ran("x")
    notebook.metadata = nbformat.from_dict({"widgets": {}, "language_info": {"version": "3.11"}})
    notebook.cells.append(notebook.cells[0])
    assert len(build_rules.chance_problems(notebook)) == 4


def test_places_are_found_in_text_but_not_in_pictures() -> None:
    notebook = ran(
        "x", shown({"image/png": "/tmp/aaaa", "text/plain": "ok"}), stream("6/home/pay a/b\n")
    )
    assert build_rules.place_problems(build_rules.text_of(notebook), ROOT) == []
    for text in (f"in {ROOT}/x", "/home/ada/x", r"C:\Users\ada", "https://py" + "pi.org", "/tmp"):
        assert len(build_rules.place_problems(f"fine\n{text}\n", ROOT)) == 1, text


def test_leaks_and_missing_stubs_are_found() -> None:
    secret = "answer_usd = price_usd * hours"
    source = f"# %%\ndef f():\n    ### BEGIN SOLUTION\n    {secret}\n    ### END SOLUTION\n"
    source += '# %% [markdown] tags=["solution"]\n# Multiply price by hours.\n# %%\nx = 1\n'
    lab = ran("def f():\n    pass")
    lab.cells.insert(0, new_markdown_cell("## Exercise 1"))
    assert build_rules.leak_problems(lab, source) == []
    assert build_rules.stub_problems(lab) == [
        '`## Exercise 1` has no stub (raise NotImplementedError("your turn"))'
    ]
    lab.cells[1].source = f"def f():\n    {secret}"
    lab.cells[1].outputs = [stream("Multiply price by hours.\n")]
    assert len(build_rules.leak_problems(lab, source)) == 2
    assert build_rules.leak_problems(lab, f"{source}{secret}\n# Multiply price by hours.\n") == []
