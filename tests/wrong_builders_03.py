"""Wrong answers to lab 03, made from switches: each switch is one mistake that learners make."""

import math

import torch
from torch.nn.utils import clip_grad_norm_

from tests.lab_source import solution_functions
from utils.costs import count_parameters, tensor_sizes
from utils.techniques.loss_scaling import unscale_and_check_

LAB = "lab_03_loss_scaling"
right = solution_functions(LAB)


def power(ratio, up=False):
    return 2.0 ** (math.ceil if up else math.floor)(math.log2(ratio))


def scale_by(
    size=lambda g: g.abs().max(), *, largest=lambda format: format.largest, up=False,
    room=lambda headroom: 2.0**-headroom, finite=True, chosen=lambda gradients: gradients,
):
    def answer(gradients, format, headroom):
        kept = [g[g.isfinite()] if finite else g for g in chosen(gradients)]
        highest = size(torch.cat([g.flatten() for g in kept]).double()).item()
        if highest == 0:
            return 1.0
        return power(largest(format) / highest, up) * room(headroom)

    return answer


def scale_in_fp32(gradients, format, headroom):
    values = torch.cat([g[g.isfinite()].flatten() for g in gradients]).abs()
    ratio = torch.log2(format.largest / values.max())
    return 1.0 if values.max() == 0 else 2.0 ** (math.floor(ratio) - headroom)


def exact_factor(gradients, format, headroom):
    highest = max(g.abs().max().item() for g in gradients)
    return format.largest / highest / 2**headroom


def scale_and_zero(gradients, format, headroom):
    finite = [g[g.isfinite()] for g in gradients]
    is_zero = not any(g.any() for g in finite)
    return 0.0 if is_zero else right["choose_scale"](gradients, format, headroom)


def patient(
    *, always_down=False, reset_on_overflow=True, reset_on_growth=True, restore="growth",
    late=0, use_patience=True, absorbed_resets=True, early_growth=False,
):
    """The solution of 03.2 with one mistake."""

    def answer(overflowed, scale, growth_interval, patience):
        scales, quiet, left = [], 0, patience + late
        for has_inf in overflowed:
            if has_inf or always_down:
                left -= 1
                halves = left <= 0 or not use_patience or always_down
                quiet = 0 if reset_on_overflow and (halves or absorbed_resets) else quiet
                scale = scale / 2 if halves else scale
                left = patience if halves and restore == "halving" else left
            else:
                quiet += 1
                left = patience if restore == "quiet" else left
                if quiet >= growth_interval or early_growth:
                    quiet = 0 if reset_on_growth else quiet
                    left = left if restore == "never" else patience + late
                    scale = scale * 2
            scales.append(scale)
        return scales

    return answer


def fused(
    *, scaled_norm=False, twice=False, copy=False, at_most_one=True, each=False, skip=True,
    nan=True, returned="true", clip=True, second_look=False, two_factors=False,
):
    """The solution of 03.3 with one mistake."""

    def answer(parameters, loss_scale, max_norm):
        gradients = [p.grad for p in parameters if p.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients])
        scaled = torch.linalg.vector_norm(norms).item()
        norm, overflowed = scaled / loss_scale, not math.isfinite(scaled)
        if not nan:
            overflowed = scaled == math.inf
        if second_look:
            overflowed = not all(g.isfinite().all() for g in gradients)
        if overflowed and skip:
            return norm
        for p in parameters:
            if p.grad is None:
                continue
            seen = torch.linalg.vector_norm(p.grad).item() / loss_scale if each else norm
            clipping = max_norm / ((scaled if scaled_norm else seen) + 1e-6) if clip else 1.0
            clipping = min(1.0, clipping) if at_most_one else clipping
            factor = clipping / loss_scale / (loss_scale if twice else 1)
            if copy:
                p.grad = p.grad * factor
            elif two_factors:
                p.grad.mul_(1 / loss_scale).mul_(clipping)
            else:
                p.grad.mul_(factor)
        return {"true": norm, "scaled": scaled, "clipped": min(norm, max_norm)}[returned]

    return answer


def lessons_way(parameters, loss_scale, max_norm):
    optimizer = torch.optim.SGD(parameters, 0.1)
    largest = unscale_and_check_(optimizer, loss_scale)
    if not all(value.isfinite() for value in largest.values()):
        for p in parameters:
            p.grad = None if p.grad is None else p.grad.mul_(loss_scale)
        return math.inf
    return clip_grad_norm_(parameters, max_norm).item()


def temporary_squares(parameters, loss_scale, max_norm):
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = sum(g.square().sum() for g in gradients).sqrt().item() / loss_scale
    if math.isfinite(norm):
        for g in gradients:
            g.mul_(min(1.0, max_norm / (norm + 1e-6)) / loss_scale)
    return norm


def loop(
    *, collect_each=True, reread="", twice=False, unscale=True, clip_first=False, clip=True,
    through_scaler=True, copy=True, update=True, zero=True, mean=True, last_only=False,
):
    """The solution of 03.4 with one mistake."""

    def reread_now(masters, moment):
        with torch.no_grad():
            pairs = zip(masters.model.parameters(), masters.parameters(), strict=True)
            for weight, master in pairs if reread == moment else ():
                master.copy_(weight)

    def answer(masters, optimizer, scaler, losses, max_norm):
        reread_now(masters, "start")
        for loss in losses:
            if last_only:
                optimizer.zero_grad()
            scaler.scale(loss() / (len(losses) if mean else 1)).backward()
            if collect_each:
                masters.collect_gradients()
        masters.collect_gradients()
        if clip_first:
            clip_grad_norm_(masters.parameters(), max_norm)
        if unscale:
            scaler.unscale_(optimizer)
        if twice:
            for master in masters.parameters():
                master.grad.div_(scaler.loss_scale)
        if clip and not clip_first:
            clip_grad_norm_(masters.parameters(), max_norm)
        scaler.step(optimizer) if through_scaler else optimizer.step()
        if update and (through_scaler or unscale):
            scaler.update()
        else:
            scaler._checks = {}
        if copy:
            masters.copy_to_model()
        reread_now(masters, "end")
        if zero:
            optimizer.zero_grad()

    return answer


def twice_by_the_scaler(masters, optimizer, scaler, losses, max_norm):
    for loss in losses:
        scaler.scale(loss() / len(losses)).backward()
        masters.collect_gradients()
        scaler.unscale_(optimizer)


def o2(first=14, later=16, step=18, per_tensor=4, per_micro_batch=0, swap=False):
    """Bytes per parameter: with one micro-batch, with several, at the step."""

    def answer(config, num_micro_batches):
        total, counts = count_parameters(config).total, per_tensor * len(tensor_sizes(config))
        several = num_micro_batches > 1
        before = later + per_micro_batch * (num_micro_batches - 2) if several else first
        pair = before * total + counts, step * total + counts
        return pair[::-1] if swap else pair

    return answer
