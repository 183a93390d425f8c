"""The moments of one micro-batch's forward and backward, layer by layer, for any sharding.

How it works: `ModelBytes` has the layers of a GPT (utils.planning.layer_bytes) and says how high
each part of a step gets. A `Sharding` says what exists beside: whole weights of the layer that
computes and of those on their way, gradients of layers that are done, a message. Between the second
block and the last but one, bytes rise or fall evenly, so only the outermost blocks are looked at.

Left out: the optimizer, and all that is held throughout (utils.planning.recipe_bytes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from utils.config import GPTConfig
from utils.planning.layer_bytes import Amount, LayerBytes, layer_bytes
from utils.planning.layer_words import embed_words, sizes_of, words_of_block, words_of_loss

Moments = Iterator[tuple[str, Amount]]


@dataclass(frozen=True)
class Sharding:
    """What a method adds, in bytes on one rank."""

    is_fresh: bool  # autograd finds no gradients, so that those of weights stay where they are
    root: int = 0  # gathered weights of everything but the blocks, from forward to backward's end
    frees_root: bool = False  # between forward and backward
    block: int = 0  # gathered weights of one block, while it computes
    ahead: int = 0  # of the next block, in backward
    ahead_forward: int = 0
    message: int = 0  # gradients of the block before, on their way
    before: int = 0  # gradients that exist when the micro-batch begins
    done: int | None = None  # what a finished block's gradients change in `before`; None: nothing
    reduce: int = 0  # a block's message and what its reduction needs, its own gradients apart
    reduce_root: int = 0
    scatters: bool = False  # a block's own gradients are gone once it is reduced


@dataclass(frozen=True)
class ModelBytes:
    """A GPT's layers in one precision, for one micro-batch."""

    config: GPTConfig
    batch_size: int
    num_tokens: int
    regime: str
    is_checkpointed: bool

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return sizes_of(self.config, self.batch_size, self.num_tokens, self.regime)

    def block(self, is_fresh: bool) -> LayerBytes:
        """One block; the run in backward if it is checkpointed."""
        again = self.is_checkpointed
        words = words_of_block(self.config, self.batch_size, self.regime, again)
        return layer_bytes(words, self._sizes, "hidden", is_fresh)

    def embed(self, is_fresh: bool) -> LayerBytes:
        """Both embeddings."""
        return layer_bytes(embed_words(self.config), self._sizes, "hidden", is_fresh)

    def loss(self, is_fresh: bool) -> LayerBytes:
        """Last norm, output layer, cross-entropy; backward in two parts, before and from the head.

        The gradients of a tied table wait from there to the embedding.
        """
        split = "+low_table" if self.regime == "autocast" else "+table"
        words = words_of_loss(self.regime)
        return layer_bytes(words, self._sizes, "scalar", is_fresh, split_at=split)

    @property
    def waiting(self) -> Amount:
        """A tied table's gradient, where autograd would otherwise have added it already."""
        return Amount(gradients=self._sizes["table"] * self.config.tied_embeddings)


def step_moments(model: ModelBytes, sharding: Sharding) -> Moments:
    """Every part of forward and backward that can be the highest, by its name."""
    walk = _Walk(model, sharding)
    yield from walk.forward()
    yield from walk.loss()
    last = model.config.num_layers - 1
    for place in sorted({last, max(0, last - 1), min(1, last), 0}, reverse=True):
        yield from walk.block_backward(place)
    yield from walk.end()


class _Walk:
    """The state that all parts share."""

    def __init__(self, model: ModelBytes, sharding: Sharding) -> None:
        self.sharding, self.last = sharding, model.config.num_layers - 1
        fresh = sharding.is_fresh
        self.embed, self.block, self.head = (
            each(fresh) for each in (model.embed, model.block, model.loss)
        )
        self.is_checkpointed = model.is_checkpointed
        kept = self.block.cached if self.is_checkpointed else self.block.saved
        self.kept = kept.plus(self.block.output)
        self.at_head = Amount() if fresh else model.waiting
        self.at_head = self.at_head.plus(self.head.gradients)

    def below(self, place: int, in_backward: bool = True) -> Amount:
        """What the layers before a block keep; autocast's memory ends with forward."""
        kept = self.kept
        if self.is_checkpointed and in_backward:
            kept = self.block.output
        return self.embed.output.plus(_times(kept, place))

    def forward(self) -> Moments:
        """The last block with nothing ahead, and the one before it with the next on its way."""
        peak = self.block.plain_peak if self.is_checkpointed else self.block.graph_peak
        for place in sorted({self.last, max(0, self.last - 1)}):
            ahead = self.sharding.ahead_forward * (place < self.last)
            gathered = self.sharding.root + self.sharding.block + ahead
            moment = self.below(place, in_backward=False).plus(peak)
            yield f"forward {place}", self._with(moment, gathered, self.sharding.before)

    def loss(self) -> Moments:
        """Forward of the loss, and backward to the output layer and through it."""
        root, before, count = self.sharding.root, self.sharding.before, self.last + 1
        logits = self.below(count, in_backward=False).plus(self.head.needed_peak)
        yield "logits", self._with(logits, root, before)
        root *= not self.sharding.frees_root
        entered = self.below(count).plus(self.head.graph_peak)
        yield "loss", self._with(entered, root, before)
        loss, through = (self.below(count).plus(peak) for peak in self.head.backward_peaks)
        yield "loss backward", self._with(loss, root, before)
        first = self.sharding.ahead and self.sharding.block  # the last block's weights come
        yield "output layer", self._with(through, self.sharding.root + first, before)

    def block_backward(self, place: int) -> Moments:
        """With `place` blocks still to come: run again, backward, reduction."""
        sharding, done = self.sharding, self.last - place
        gathered = sharding.root + sharding.block + sharding.ahead * (place > 0)
        gathered += sharding.message * (done > 0)
        below = self.below(place)
        if self.is_checkpointed:
            again = below.plus(self.block.output).plus(self.block.needed_peak)
            yield f"run {place} again", self._later(again, gathered, done)
        (peak,) = self.block.backward_peaks
        yield f"backward {place}", self._later(below.plus(peak), gathered, done)
        if sharding.scatters:
            gathered = sharding.root + sharding.ahead * (place > 0) + sharding.reduce
            ended = below.plus(self.block.output).plus(self.block.gradients)
            yield f"reduce {place}", self._later(ended, gathered, done)

    def end(self) -> Moments:
        """Embedding's backward, and the root's reduction."""
        sharding, count = self.sharding, self.last + 1
        (peak,) = self.embed.backward_peaks
        gathered = sharding.root + sharding.message
        yield "embedding", self._later(peak, gathered, count)
        if sharding.scatters:
            own = self.embed.gradients
            yield "reduce root", self._later(own, sharding.reduce_root, count)

    def _later(self, moment: Amount, gathered: int, num_done: int) -> Amount:
        """A moment in backward, with the gradients of what is done."""
        sharding = self.sharding
        if sharding.done is not None:
            before = sharding.before + num_done * sharding.done
        else:
            before = sharding.before + num_done * self.block.gradients.gradients
        return self._with(moment.plus(self.at_head), gathered, before)

    def _with(self, moment: Amount, gathered: int, gradients: int) -> Amount:
        return moment.plus(Amount(0, gathered, gradients))


def _times(amount: Amount, count: int) -> Amount:
    return Amount(*(count * each for each in amount))
