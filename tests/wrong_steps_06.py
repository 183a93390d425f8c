"""Lab 06's wrong answers to its two training steps, with the words that must answer them."""

from functools import partial

from tests.wrong_builders_06 import mutant

overlap, tokens = partial(mutant, "06.3"), partial(mutant, "06.4")

SEND = """\
        while len(works) < len(order) and order[len(works)] in finished:
            gradient = order[len(works)].grad
            gradient /= world_size
            works.append(start_sum(gradient))
"""
REGISTER = "        parameter.register_post_accumulate_grad_hook(on_gradients)\n"
AT_ONCE = """\
        for parameter in parameters:
            if parameter not in works:
                parameter.grad /= world_size
                works[parameter] = start_sum(parameter.grad)
"""
BY_MODULE = """\
    for module in model.modules():
        for parameter in filter(lambda p: p.requires_grad, module.parameters()):
            parameter.register_post_accumulate_grad_hook(on_gradients)
"""
FROM_HOOK = """\
        for parameter in parameters:
            parameter.grad /= world_size
            works.append(start_sum(parameter.grad))
"""
OVERLAP = [
    (overlap("broadcast_model(model)", ""), "parameters never broadcast"),
    (overlap("broadcast_model(model)", "[dist.broadcast(p.detach(), 0) for p in "
             "model.parameters()]"), "buffers are part of the model"),
    (overlap("broadcast_model(model)", "[dist.broadcast(t.detach(), 0) for t in "
             "(*model.parameters(), *model.buffers()) if t.requires_grad or t.dim() == 0]"),
     "frozen weights differ as well"),
    (overlap("gradient /= world_size", "pass"), "sum instead of mean"),
    (overlap("work.wait()", "work.wait()\n        for p in order:\n            p.grad /= "
             "world_size"), "divided by world_size twice"),
    (overlap(SEND, FROM_HOOK, "    for parameter in order:\n" + REGISTER, BY_MODULE,
             "on_gradients(*order)", ""), "the hook fires twice"),
    (overlap(SEND, FROM_HOOK, "for parameter in order:\n" + REGISTER,
             "for _, parameter in model.named_parameters(remove_duplicate=False):\n"
             "        if parameter.requires_grad:\n    " + REGISTER,
             "on_gradients(*order)", ""), "take each parameter once"),
    (overlap(SEND, FROM_HOOK, "on_gradients(*order)",
             "[p.register_post_accumulate_grad_hook(on_gradients) for p in order]"),
     "hooks are registered anew in every step"),
    (overlap("work.wait()", "pass"), "did not wait for 7 of 7"),
    (overlap("for work in works:", "for work in works[-1:]:"), "did not wait for 6 of 7"),
    (overlap(SEND, AT_ONCE, "finished, works = set(), []", "finished, works = set(), {}",
             "for work in works:", "for work in works.values():"),
     "the order of messages differs between ranks"),
    (overlap(REGISTER, "        pass\n"), "nothing travels before backward has ended"),
    (overlap("finished.update(parameters)\n", "pass\n", SEND, SEND +
             "        finished.update(parameters)\n", "on_gradients(*order)",
             "on_gradients(*order)\n        on_gradients()"), "the latest gradient included"),
    (overlap("for parameter in order:\n            if parameter.grad is None:",
             "for parameter in []:\n            if parameter.grad is None:",
             "on_gradients(*order)", "on_gradients(*(p for p in order if p.grad is not None))"),
     "so its hook never fires"),
    (overlap("start_sum(gradient)", "start_sum(gradient.zero_())"), "all-zero gradients agree"),
    (overlap("        works.clear()\n", ""), "ready for the next step"),
    (overlap("            works.append(start_sum(gradient))\n",
             "            works.append(gradient)\n", "work.wait()", "pass"), "nothing was sent"),
    (overlap("            gradient /= world_size\n            works.append(start_sum(gradient))\n",
             "            works.append(start_sum(gradient))\n            gradient /= world_size\n"),
     "changed while it travelled"),
    (overlap("works.append(start_sum(gradient))", "work = start_sum(gradient)\n            "
             "work.wait()\n            works.append(work)"), "there is no overlap"),
    (overlap("start_sum(gradient)", "start_sum(gradient.clone())"), "no parameter's gradient"),
    (overlap("start_sum(gradient)", "dist.all_reduce(gradient, async_op=True)"),
     "not with torch.distributed"),
    (overlap("list(model.parameters())", "list(model.parameters())[::-1]"), "in another order"),
    (overlap("return finish", "return finish()"), "without a return"),
]  # fmt: skip

SUM_UP = "summed.backward()"
REDUCE = "dist.all_reduce(flat_P)"
PER_TOKEN = "flat_P /= flat_P[-1].clone()"
CLIP = "norm = clip_grad_norm_(parameters, max_norm)"
OWN_MEAN = "flat_P /= flat_P[-1].clone()\n    dist.all_reduce(flat_P)\n    flat_P /= "
WORLD = "dist.get_world_size()"
MEAN_EACH = """\
    parameters = list(model.parameters())
    for loss in losses:
        summed, count = loss()
        (summed / count / len(losses)).backward()
        for parameter in parameters:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
"""
LOOP = """\
    for loss in losses:
        summed, count = loss()
        summed.backward()
        num_tokens += count
    parameters = list(model.parameters())
"""
CLIPPED_PART = """\
    all_tokens = flat_P[-1:].clone()
    dist.all_reduce(all_tokens)
    part = flat_P * dist.get_world_size() / all_tokens
    part *= min(1.0, max_norm / part[:-1].norm().item())
    dist.all_reduce(part)
    flat_P = part / dist.get_world_size()
""".strip()
TOKENS = [
    (tokens(PER_TOKEN, "pass"), "sum instead of mean"),
    (tokens(f"{REDUCE}\n    {PER_TOKEN}", f"{PER_TOKEN}\n    {REDUCE}"),
     "the ranks' means are added up"),
    (tokens(PER_TOKEN, f"{PER_TOKEN} * {WORLD}"), "divided by world_size as well"),
    (tokens(LOOP, MEAN_EACH, REDUCE, "flat_P[-1] = 1.0"), "sync in every micro-batch"),
    (tokens(SUM_UP, "(summed / len(losses)).backward()"), "number of micro-batches as well"),
    (tokens(SUM_UP, "(summed / len(losses) ** 2).backward()"), "number of micro-batches twice"),
    (tokens(f"{REDUCE}\n    {PER_TOKEN}", OWN_MEAN + WORLD), "a mean of the ranks' means"),
    (tokens(SUM_UP, "(summed / count / len(losses)).backward()", PER_TOKEN, f"flat_P /= {WORLD}"),
     "a mean of the micro-batches' means"),
    (tokens(PER_TOKEN, "flat_P /= num_tokens"), "send their number, too"),
    (tokens(REDUCE, ""), "nothing of the other ranks"),
    (tokens(SUM_UP, "optimizer.zero_grad()\n        summed.backward()"), "only the last"),
    (tokens(f"{REDUCE}\n    {PER_TOKEN}", CLIPPED_PART, CLIP, CLIP.replace("max_norm", "1e9")),
     "clipping before averaging"),
    (tokens(CLIP, CLIP.replace("max_norm", "1e9")), "the mean is not clipped"),
    (tokens(CLIP, CLIP + "\n    for p in parameters:\n        p.grad *= max_norm / norm"),
     "a gradient below max_norm stays"),
    (tokens("parameter.grad = part.view_as(parameter)", "parameter.grad = part.view_as(parameter)"
            "\n        clip_grad_norm_([parameter], max_norm)"), "each parameter is clipped"),
    (tokens(REDUCE, f"{REDUCE}\n    flat_P[:-1] = 0"), "all-zero gradients agree"),
    (tokens("return norm.item()", "return min(norm.item(), max_norm)"), "norm before clipping"),
    (tokens("return norm.item()", "return norm"), "with .item()"),
    (tokens("optimizer.zero_grad()", "pass"), "leaves a gradient behind"),
    (tokens("optimizer.step()", ""), "call optimizer.step() once"),
    (tokens(LOOP, "    if not losses:\n        return 0.0\n" + LOOP), "also when it has none"),
]  # fmt: skip
