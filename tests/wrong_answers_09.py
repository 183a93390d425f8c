"""Lab 09's wrong answers, each with the words that its check must answer with."""

from tests.wrong_buffers_09 import MEANS, PLANS
from tests.wrong_gains_09 import GAINS
from tests.wrong_waits_09 import SEARCHES, WAITS

BY_KEY = {"09.1": WAITS, "09.2": SEARCHES, "09.3": PLANS, "09.4": MEANS, "09.5": GAINS}
WRONG = [(key, answer, words) for key, found in BY_KEY.items() for answer, words in found]
