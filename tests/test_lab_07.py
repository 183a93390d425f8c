"""Lab 07's checks: the solution passes, the stub is not attempted, wrong answers are named."""

from tests.lab_checks import LabChecks
from tests.wrong_answers_07 import WRONG
from tests.wrong_builders_07 import ANSWERS, LAB, right


class TestLab07(LabChecks):
    lab, answers, right, wrong = LAB, ANSWERS, right, WRONG
    least_wrong = 15
