"""The parts behind run_ranks: captured output, pages, patience, words, where a rank is."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch

from utils.checks.blame import is_library_file
from utils.ranks import output
from utils.ranks.culprit import culprit
from utils.ranks.output import MAX_BYTES, Captured
from utils.ranks.page import NUM_TURNS, PAGE_BYTES, make_pages
from utils.ranks.pickling import pack_job, pack_result, unpack
from utils.ranks.whereabouts import Line, callers_line, where_now
from utils.ranks.words import clean, death_text, names, place_text


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield Captured(read), write
    os.close(read)


def captured(pipe, text):
    each, write = pipe
    os.write(write, text.encode())
    os.close(write)
    each.drain()
    return each.lines()


def test_lines_are_whole_and_progress_bars_show_their_last_state(pipe):
    text = "one\n10%\r50%\r100%\r\n\n[W1124 20:22:24.123 socket.cpp:464] no name\nunfinished"
    assert captured(pipe, text) == ["one", "100%", "", "[socket.cpp] no name", "unfinished"]


def test_the_words_of_an_abort_are_left_to_the_report(pipe):
    text = "mine\nterminate called after throwing\n  what():  [enforce fail at pair.cc:1] ...\n"
    assert captured(pipe, text) == ["mine"]


def test_output_is_kept_up_to_a_limit(pipe):
    each, write = pipe
    for _ in range(3):
        os.write(write, b"y" * (MAX_BYTES // 3) + b"\n")
        each.read()
    assert each.open and each.lines()[-1].startswith("(more was printed; only the first 100,000")
    os.close(write)
    each.drain()
    assert not each.open and len(each.lines()) == 3


def test_labels_leave_no_space_behind_an_empty_line(pipe):
    captured(pipe, "\nx\n")
    assert list(output._labelled([pipe[0]])) == ["[rank 0]", "[rank 0] x"]


def call(kind="all_reduce", num_values=4, group_ranks=(0, 1)):
    return SimpleNamespace(
        kind=kind, num_values=num_values, dtype="float32", root=-1, group_ranks=group_ranks
    )


def test_a_page_keeps_the_last_call_for_another_process(tmp_path):
    (tmp_path / "pages").touch()
    first, second = make_pages(str(tmp_path / "pages"), 2)
    assert second.last() is None and second.calls == 0
    for kind in ("barrier", "all_reduce"):
        second.note(call(kind))
    other = make_pages(str(tmp_path / "pages"), 2)[1]
    assert (other.calls, other.last().kind, other.last().line.function) == (
        2,
        "all_reduce",
        "test_a_page_keeps_the_last_call_for_another_process",
    )
    assert first.last() is None and os.path.getsize(tmp_path / "pages") == 2 * PAGE_BYTES
    second._memory[PAGE_BYTES + 20] = 0  # half written
    assert other.last() is None


def test_ranks_whose_turns_differ_do_not_agree(tmp_path):
    (tmp_path / "pages").touch()
    pages = make_pages(str(tmp_path / "pages"), 2)

    def agree():
        first, second = (page.turns() for page in pages)
        return all(first[turn] == second[turn] for turn in first.keys() & second.keys())

    assert pages[0].turns() == {} and agree()
    pages[0].note(call(group_ranks=(0, 2)))  # a group of its own
    for rank, page in enumerate(pages):
        page.note(call())
        page.note(call("send" if rank else "recv", 2 + rank))  # no turn
        page.note(call("all_to_all", 5 + rank))  # of uneven parts
    pages[1].note(call("barrier"))  # one is ahead
    assert agree() and len(pages[0].turns()) == len(pages[1].turns()) == 3
    pages[0].note(call("broadcast"))
    assert not agree()
    for _ in range(2 * NUM_TURNS):
        pages[0].note(call())
    assert len(pages[0].turns()) == NUM_TURNS and pages[0].last().kind == "all_reduce"


def test_a_very_long_path_leaves_the_call(tmp_path, monkeypatch):
    (tmp_path / "pages").touch()
    (page,) = make_pages(str(tmp_path / "pages"), 1)
    monkeypatch.setattr("utils.ranks.page.callers_line", lambda: Line("x" * 2000, 1, "f", 1))
    page.note(call())
    assert page.last().kind == "all_reduce" and page.last().line is None


def test_the_learners_line_is_not_the_courses_nor_torchs():
    assert callers_line().function == "test_the_learners_line_is_not_the_courses_nor_torchs"
    assert is_library_file(torch.__file__) and is_library_file(output.__file__)
    assert is_library_file(os.__file__) and not is_library_file(__file__)


def test_where_now_shows_the_main_threads_line():
    def call_worker():
        return worker()

    def worker():
        answers = []
        ask = threading.Thread(target=lambda: answers.append(where_now(7)))
        ask.start()
        ask.join()
        return answers[0]

    where = call_worker()
    assert where.calls == 7 and not where.waiting and where.inside in ("start", "join")
    assert [(line.file, line.function) for line in where.lines] == [(__file__, "worker")]
    assert where_now(7).lines == ()  # no worker is on the stack


def test_words():
    assert names([2, 0, 1]) == "ranks 0, 1 and 2" and names([5]) == "rank 5"
    assert clean("at 0x7f00deadbeef:\n  no") == "at 0x...: no"
    assert place_text(Line("nowhere.py", 5, "f", 4)) == "line 2 of f"
    assert death_text(-signal.SIGTERM) == "got SIGTERM." and "code 0" in death_text(0)
    assert death_text(-signal.SIGABRT).startswith("was aborted (SIGABRT)")


def test_the_innermost_part_that_cannot_travel_is_named():
    lock = threading.Lock()

    class Holder:
        def __init__(self):
            self.inner = [lock]

    def worker(rank, world_size):
        return holder

    holder = Holder()
    with pytest.raises(TypeError, match="`holder`, used by the worker, holds an object of type"):
        pack_job(worker, ())
    assert culprit([("a", 1), ("b", [2])], lambda value: None) == ""
    with pytest.raises(TypeError, match=r"the value holds an object of type _thread.lock"):
        pack_result({"x": (lock, 1)})


def test_a_tensor_of_another_device_is_refused_in_arguments_only(monkeypatch):
    tensor = torch.ones(2)
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0), raising=False)
    with pytest.raises(TypeError, match=r"argument 1 is a tensor on cuda:0: send it as tensor.cpu"):
        pack_job(len, (tensor,))
    monkeypatch.undo()
    assert unpack(pack_result(tensor)).tolist() == [1.0, 1.0]
