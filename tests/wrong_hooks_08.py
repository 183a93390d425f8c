"""Lab 08's wrong hooks, each with the words that its check must answer with."""

from functools import partial

from tests.wrong_builders_08 import mutant

free, ahead = partial(mutant, "08.1"), partial(mutant, "08.2")

BEFORE = "layer.register_forward_pre_hook(lambda *_: gather(k))"
AFTER = "layer.register_forward_hook(lambda *_: free(k))"
BACK = "layer.register_full_backward_pre_hook(before_backward)"
LEFT = "            if not waiting:\n                free(k)\n"
WATCH = "        watch(k, layer)\n"
AT_END = """\
        def before_backward(*_: object) -> None:
            torch.autograd.Variable._execution_engine.queue_callback(lambda: free(k))
            gather(k)
"""
BEGIN = """\
        def before_backward(*_: object) -> None:
            waiting.update(layer.parameters())
            gather(k)
"""
ALL_AT_START = """\
        watch(k, layer)
    layers[0].register_forward_pre_hook(lambda *_: [gather(k) for k in range(len(layers))] and None)
"""
FREE_NEXT = "layer.register_forward_hook(lambda *_: free(k - 1) if k else None)"

ONE = "next(iter(layer.parameters())).register_post_accumulate_grad_hook(lambda _: free(k))"
LAST_ONE = ONE.replace("next(iter(layer.parameters()))", "list(layer.parameters())[-1]")
EACH = """\
        for parameter in layer.parameters():
            parameter.register_post_accumulate_grad_hook(on_gradient)
"""

FREES = [
    (free(EACH, f"        {ONE}\n"), "freed before backward has used them"),
    (free(EACH, f"        {LAST_ONE}\n"), "freed before backward has used them"),
    (free(AFTER, "pass", LEFT, "            pass\n"), "full weights are kept"),
    (free(AFTER, "pass"), "full weights are kept"),
    (free(AFTER, "pass", BEFORE, "pass", WATCH, ALL_AT_START), "full weights are kept"),
    (free(AFTER, FREE_NEXT), "free a layer when its own forward ends"),
    (free(BACK, "layer.register_full_backward_pre_hook(lambda *_: waiting.update(layer.parameters("
          ")))"), "not gathered again for backward"),
    (free(BACK, "pass"), "not gathered again for backward"),
    (free(BEFORE, "layer.register_forward_pre_hook(lambda *_: (gather(k), k)[1])"),
     "a hook must return None"),
    (free(LEFT, "            free(k)\n"), "freed before backward has used them"),
    (free(BACK, f"{BACK}\n        layer.register_full_backward_hook(lambda *_: free(k))"),
     "register_full_backward_hook calls too early"),
    (free(BEGIN, "        before_backward = lambda *_: gather(k)\n"),
     "freed before backward has used them"),
    (free(LEFT, "            pass\n", BEGIN, AT_END), "freed only at the end of the step"),
    (free(LEFT, "            pass\n"), "free a layer when its backward has ended"),
    (free(LEFT, "            if not waiting and k + 1 < len(layers):\n"
          "                free(k + 1)\n"),
     "free a layer as soon as its backward has ended"),
    (free(BACK, "layer.register_full_backward_pre_hook(lambda *_: waiting.update("
          "layer.parameters()))", "            waiting.discard(parameter)\n",
          "            gather(k)\n            waiting.discard(parameter)\n"),
     "the gather in backward comes too late"),
    (free(BACK, "layer.register_full_backward_pre_hook(lambda *_: waiting.update("
          "layer.parameters()))\n        layer.register_full_backward_hook(lambda *_: gather(k))"),
     "Likely mistake"),
    (free(BEFORE, "pass", WATCH, WATCH + "        layer.register_forward_pre_hook(lambda *_: "
          "gather(k))\n"), "sees the loop's last k"),
    (free(BEFORE, "pass"), "gather a layer before its forward"),
    (free(BEFORE, "layer.register_forward_hook(lambda *_: gather(k))"), "gather a layer before"),
    (free(WATCH, "        pass\n"), "nothing is gathered"),
    (free("    for k, layer in enumerate(layers):\n" + WATCH,
          "    watch(0, layers[0])\n"), "gather a layer before its forward"),
    (free(AFTER, "layer.register_forward_hook(lambda m, i, result: free(k) or 2 * result)"),
     "a hook that returns something replaces"),
    (free(BEFORE, f"{BEFORE}; layer.register_forward_hook(lambda *_: (free(k), gather(k)) "
          "and None)"), "is gathered 3 times"),
    (free(WATCH, f"{WATCH}    layers[-1].register_forward_hook(lambda *_: gather(0))\n"),
     "2 layers are whole at once"),
]  # fmt: skip

START = "            pending[k] = pending.get(k) or start_gather(k)\n"
WAIT = "pending[k].wait()"
NEXT = "start(*order[order.index(k) + 1 :][:1])"
LAST = "start(*order[: order.index(k)][-1:])"
ALL_NEXT = "start(*order[order.index(k) + 1 :])"
ALL_LAST = "start(*order[: order.index(k)][::-1])"
HOOKS = """\
        layer.register_forward_pre_hook(after)
        layer.register_full_backward_pre_hook(before)
"""
BY_RANK = """\
        if torch.distributed.get_rank() == 0:
            layer.register_forward_pre_hook(after)
        layer.register_full_backward_pre_hook(before)
"""
FIRST_OTHER = """\
        if k not in order:
            order.append(k)
        if torch.distributed.get_rank() == 0:
            start(*order[order.index(k) + 1 :][:1])
        start(k)
"""
ASK = """\
        if k not in order:
            order.append(k)
        start(k)
"""

AHEADS = [
    (ahead(LAST, NEXT), "prefetches the following layer of forward"),
    (ahead(START, f"{START}            {WAIT}\n"), "waited for at once"),
    (ahead(NEXT, ALL_NEXT, LAST, ALL_LAST), "everything is prefetched at once"),
    (ahead(NEXT, ALL_NEXT), "everything is prefetched at once"),
    (ahead("order, pending = [], {}", "order, pending = list(range(len(layers))), {}",
           NEXT, ALL_NEXT), "the list's numbers say nothing"),
    (ahead("order, pending = [], {}", "order, pending = list(range(len(layers))), {}"),
     "the list's numbers say nothing"),
    (ahead(LAST, "start(k - 1) if k else None"), "the list's numbers say nothing"),
    (ahead(NEXT, "start(k + 1) if k != order[-1] and k + 1 < len(layers) else None"),
     "the list's numbers say nothing"),
    (ahead(HOOKS, "        pass\n"), "gathered when it is needed"),
    (ahead("layer.register_full_backward_pre_hook(before)", "pass"), "backward: while layer 1"),
    (ahead("layer.register_forward_pre_hook(after)", "pass"), "forward: while layer 2"),
    (ahead("layer.register_forward_pre_hook(after)", "layer.register_forward_hook(after)"),
     "gathered when it is needed"),
    (ahead(WAIT, "pass"), "call wait() on what start_gather has returned"),
    (ahead("[:1])", "[:2])"), "3 layers are whole"),
    (ahead("][-1:])", "][-2:])"), "Likely mistake"),
    (ahead(HOOKS, BY_RANK), "rank 1, forward: while layer 2"),
    (ahead(ASK, FIRST_OTHER, HOOKS, "        layer.register_full_backward_pre_hook(before)\n"),
     "the order of messages differs between ranks"),
    (ahead("    free_in_time(layers, gather, leave)\n", "", HOOKS,
           HOOKS + "    free_in_time(layers, gather, leave)\n",
           NEXT, "start(*(order[order.index(k) + 1 :][:1] if k in order else ()))"),
     "whoever needs weights now asks first"),
    (ahead("free_in_time(layers, gather, leave)",
           "free_in_time(layers, gather, lambda k: pending.pop(k) and None)"),
     "each is freed as soon as it is done"),
    (ahead("        del pending[k]\n", ""), "computes backward without its weights"),
    (ahead(NEXT, "start(*(order * 2)[order.index(k) + 1 :][:1]) if len(order) == len(layers) else "
           "None"), "after the last layer of forward, none comes next"),
]  # fmt: skip
