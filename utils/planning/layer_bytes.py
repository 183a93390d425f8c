"""What one layer keeps and needs at its worst moments, from its words, by category.

How it works: `walk` follows the words of `utils.planning.layer_words` and remembers the highest
moment. An `Amount` has three parts: activations, what exists whole for a moment (16-bit copies of
weights and their gradients), and gradients. Gradients either stay, when there were none before
(`fresh`), or go as soon as they have been added to those that exist.

Left out: what is held all the time, and what a method of sharding adds (utils.planning.step_bytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from utils.planning.layer_words import WEIGHTS, LayerWords


class Amount(NamedTuple):
    """Bytes by category."""

    activations: int = 0
    gathered: int = 0
    gradients: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.activations + self.gathered + self.gradients

    def plus(self, other: Amount) -> Amount:
        """Part by part."""
        return Amount(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: Amount) -> Amount:
        """Part by part."""
        return Amount(*(a - b for a, b in zip(self, other, strict=True)))


NOTHING = Amount()


@dataclass(frozen=True)
class LayerBytes:
    """One layer, above its input; all but `output` leave out what enters the layer."""

    output: Amount
    saved: Amount  # kept from forward to backward, beside input and output
    cached: Amount  # kept by autocast after a forward that keeps nothing
    plain_peak: Amount  # in a forward that keeps nothing
    needed_peak: Amount  # in a forward until there is all that backward needs
    graph_peak: Amount  # in a whole forward that keeps it
    backward_peaks: tuple[Amount, ...]  # one for each part of the backward words
    gradients: Amount  # that are there after backward and were not before


def layer_bytes(
    words: LayerWords, sizes: Mapping[str, int], output: str, is_fresh: bool,
    split_at: str = "",
) -> LayerBytes:  # fmt: skip
    """Follow a layer's words. `split_at` is the word before which backward is cut in two parts."""
    forward = f"{words.needed} {words.rest}"
    out = Amount(sizes[output])
    plain_peak, plain_end = walk(forward.replace("~", "-"), sizes)
    graph_peak, graph_end = walk(forward, sizes)
    needed_peak = walk(words.needed, sizes)[0]
    saved, moment, peaks = graph_end.minus(out), graph_end.minus(out), []
    for part in _parts(words.backward, split_at):
        peak, moment = walk(part, sizes, moment, is_fresh)
        peaks.append(peak)
    return LayerBytes(
        out, saved, plain_end.minus(out), plain_peak, needed_peak, graph_peak,
        tuple(peaks),
        Amount(gradients=moment.gradients),
    )  # fmt: skip


def walk(
    words: str, sizes: Mapping[str, int], start: Amount = NOTHING, is_fresh: bool = False
) -> tuple[Amount, Amount]:
    """(highest moment, last moment) when tensors come and go in this order."""
    moment = peak = start
    for word in words.split():
        sign, name = word[0], word[1:]
        if sign == "~" or (sign == "-" and is_fresh and name in WEIGHTS):
            continue
        size = -sizes[name] if sign == "-" else sizes[name]
        if name in WEIGHTS:
            moment = moment._replace(gradients=moment.gradients + size)
        elif name.removeprefix("low_").removeprefix("spare_") in WEIGHTS:
            moment = moment._replace(gathered=moment.gathered + size)
        else:
            moment = moment._replace(activations=moment.activations + size)
        peak = max(peak, moment, key=lambda each: each.total)
    return peak, moment


def _parts(words: str, split_at: str) -> list[str]:
    """The words, or those before and from the first `split_at` on."""
    if not split_at:
        return [words]
    before, found, after = words.partition(split_at)
    return [before, found + after]
