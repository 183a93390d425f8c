"""Wrong answers to lab 07: the solution with some of its code changed.

Functions of this file travel to the ranks by value, so it imports nothing of its neighbours that
they use.
"""

from tests.lab_source import make_mutant, solution_functions

LAB = "lab_07_zero"
ANSWERS = {
    "07.1": "zero_bill",
    "07.2": "shard_optimizer",
    "07.3": "scatter_gradients",
    "07.4": "clip_shards",
    "07.5": "reshard",
}
right = solution_functions(LAB)
mutant = make_mutant(LAB, ANSWERS)
