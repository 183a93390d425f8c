"""Lab 08's checks: the solution passes, the stub is not attempted, wrong answers are named."""

from tests.lab_checks import LabChecks
from tests.wrong_builders_08 import ANSWERS, LAB, right
from tests.wrong_hooks_08 import AHEADS, FREES
from tests.wrong_hybrids_08 import HYBRIDS
from tests.wrong_micro_08 import MICRO
from tests.wrong_pays_08 import PAYS

LISTS = {"08.1": FREES, "08.2": AHEADS, "08.3": MICRO, "08.4": HYBRIDS, "08.5": PAYS}


class TestLab08(LabChecks):
    lab, answers, right = LAB, ANSWERS, right
    wrong = tuple((key, answer, words) for key, wrong in LISTS.items() for answer, words in wrong)
