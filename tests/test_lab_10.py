"""Lab 10's checks: the solution passes, the stub is not attempted, wrong answers are named."""

from tests.lab_checks import LabChecks
from tests.wrong_answers_10 import WRONG
from tests.wrong_builders_10 import ANSWERS, LAB, right


class TestLab10(LabChecks):
    lab, answers, right, wrong = LAB, ANSWERS, right, WRONG
