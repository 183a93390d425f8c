"""Wrong answers to lab 08: the solution with some of its code changed."""

from tests.lab_source import make_mutant, solution_functions

LAB = "lab_08_fsdp"
ANSWERS = {
    "08.1": "free_in_time",
    "08.2": "gather_ahead",
    "08.3": "step_on_micro_batches",
    "08.4": "make_hybrid",
    "08.5": "does_it_pay",
}
right = solution_functions(LAB)
mutant = make_mutant(LAB, ANSWERS)
