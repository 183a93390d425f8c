"""Where each exercise's answer runs while it is judged: "apart", "ranks" or "inside".

How it works: a table, found by trying: an exercise is "apart" if its check, given only copies of
numbers, lists and tensors, passes the course's solution and rejects what it rejects otherwise;
"ranks" if the check calls the answer on ranks alone. All others are "inside". A new lab's ways are
found by `python -m utils.grading.ways NN`.
"""

APART = frozenset(
    "01.1 01.2 01.3 01.4 01.5 02.3 02.4 03.1 03.2 03.5 04.3 04.4 05.1 05.2 05.5 06.2 07.1 08.5 "
    "09.1 09.2 09.3 09.5 10.1 10.2 10.4 10.5".split()
)
RANKS = frozenset("06.1 06.3 06.4 06.5 07.2 07.3 07.4 08.1 08.2 08.3 08.4 09.4".split())


def kind_of(key: str) -> str:
    """The way of judging an exercise: "apart" and "ranks" keep the judge's process clean."""
    if key in APART:
        return "apart"
    return "ranks" if key in RANKS else "inside"
