"""Waits until gloo's threads have let go of what they sent; else a peak would depend on luck.

How it works: a thread of gloo keeps the tensors of a message for a moment after the message has
arrived, longer if another thread takes its core. Asleep means: nothing left to let go of, or
waiting for a message that is under way and keeps its tensors by right.

Left out: systems other than Linux, where nothing is waited for.
"""

import time

import torch.distributed as dist

from utils.threads import other_threads

GLOO_THREAD = "pt_gloo_runloop"  # the name that torch gives to the threads that carry messages
PAUSE_S, LIMIT_S = 1e-4, 1.0


def let_gloo_finish() -> None:
    """Return once all threads that carry messages sleep, at the latest after a second."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    end_s, num_calm = time.perf_counter() + LIMIT_S, 0
    while num_calm < 2 and time.perf_counter() < end_s:
        time.sleep(PAUSE_S)  # a thread that frees a tensor needs Python's lock: leave it
        carriers = [each for each in other_threads() if each.name == GLOO_THREAD]
        if not carriers:
            return
        num_calm = num_calm + 1 if all(each.state == "S" for each in carriers) else 0
