"""A stand-in for the processes in which `make record` runs its experiments."""

from utils.record_apart import Outcome
from utils.record_where import device_name
from utils.recorded import path_of, read_recorded

ROWS = [{"precision": "fp32", "size": 8, "seconds": 1.0, "flops_per_s": 1.0}]


class Runner:
    """Stands in for `run_apart`: notes what it was asked, and answers by name."""

    def __init__(self, answers=None, folder=None):
        self.answers, self.folder, self.asked, self.on_disk = answers or {}, folder, [], []

    def __call__(self, name, device, limit_s):
        self.asked.append((name, device, limit_s))
        if self.folder:
            path = path_of(device_name("cpu"), self.folder)
            self.on_disk.append(read_recorded(path)[0] if path.exists() else None)
        answer = self.answers.get(name, Outcome(2.0, ROWS))
        if isinstance(answer, BaseException):
            raise answer
        return answer
