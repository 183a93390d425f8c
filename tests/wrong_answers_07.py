"""Lab 07's wrong answers, each with the words that its check must answer with."""

from tests.wrong_bills_07 import BILLS
from tests.wrong_clips_07 import CLIPS
from tests.wrong_resumes_07 import RESUMES
from tests.wrong_scatters_07 import SCATTERS
from tests.wrong_shards_07 import SHARDS

BY_KEY = {"07.1": BILLS, "07.2": SHARDS, "07.3": SCATTERS, "07.4": CLIPS, "07.5": RESUMES}
WRONG = [(key, answer, words) for key, found in BY_KEY.items() for answer, words in found]
