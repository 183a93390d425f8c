"""Lab 09's checks: the solution passes, the stub is not attempted, wrong answers are named."""

from tests.lab_checks import LabChecks
from tests.wrong_answers_09 import WRONG
from tests.wrong_builders_09 import ANSWERS, LAB, right


class TestLab09(LabChecks):
    lab, answers, right, wrong = LAB, ANSWERS, right, WRONG
