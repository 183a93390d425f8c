"""Wrong answers to lab 09: the solution with some of its code changed.

Functions of this file travel to the ranks by value, so it imports nothing of its neighbours that
they use.
"""

from tests.lab_source import make_mutant, solution_functions

LAB = "lab_09_yafsdp"
ANSWERS = {
    "09.1": "add_waits",
    "09.2": "first_overwrite",
    "09.3": "plan_buffers",
    "09.4": "mean_of_step",
    "09.5": "choose_buffers",
}
right = solution_functions(LAB)
mutant = make_mutant(LAB, ANSWERS)
