"""Lab 10's wrong answers, each with the words that its check must answer with."""

from tests.wrong_bills_10 import BILLS, SAVES
from tests.wrong_plans_10 import CHOICES, PREDICTIONS
from tests.wrong_runs_10 import RUNS

BY_KEY = {"10.1": PREDICTIONS, "10.2": CHOICES, "10.3": RUNS, "10.4": BILLS, "10.5": SAVES}
WRONG = [(key, answer, words) for key, found in BY_KEY.items() for answer, words in found]
