"""Wrong answers to lab 10: the solution with some of its code changed."""

from tests.lab_source import make_mutant, solution_functions

LAB = "lab_10_all_together"
ANSWERS = {
    "10.1": "predict_run",
    "10.2": "choose_recipe",
    "10.3": "train_job",
    "10.4": "explain",
    "10.5": "save_every",
}
right = solution_functions(LAB)
mutant = make_mutant(LAB, ANSWERS)
