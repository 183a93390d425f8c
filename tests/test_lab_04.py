"""Lab 04's checks: the solution passes, the stub is not attempted, wrong answers are named."""


from tests.lab_checks import LabChecks
from tests.wrong_answers_04 import WRONG
from tests.wrong_builders_04 import LAB, right
from utils.checks.engine import judge

ANSWERS = {
    "04.1": "make_replay",
    "04.2": "checkpoint_module",
    "04.3": "cut_chain",
    "04.4": "parallel_chain_bytes",
    "04.5": "segmented_loss",
}


class TestLab04(LabChecks):
    lab, answers, right, wrong = LAB, ANSWERS, right, WRONG


def test_a_backward_that_is_still_a_stub_is_not_attempted():
    class RunTwice(right["RunTwice"]):
        @staticmethod
        def backward(ctx, *gradients):
            raise NotImplementedError("your turn")

    def checkpoint_module(module, *args, **kwargs):
        values = (*args, *kwargs.values())

        def run(*values):
            named = dict(zip(kwargs, values[len(args) :], strict=True))
            return module(*values[: len(args)], **named)

        return RunTwice.apply(run, len(values), *values, *module.parameters())

    assert judge("04.2", checkpoint_module).status == "not attempted"
