"""Lab 04's wrong answers, each with the words that its check must answer with."""

from torch.utils.checkpoint import checkpoint

from tests.wrong_builders_04 import (
    bill,
    cutting,
    each_block_alone,
    equal_segments,
    in_segments,
    keeps_squares,
    replaying,
    right,
)
from tests.wrong_checkpoints_04 import real
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.replay import ReplayState


def lessons_state(*generators):
    return ReplayState([]).replay


def first_only(result):
    return result[0] if isinstance(result, tuple) else result


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def hooks_of_torch(module, *args, **kwargs):
    return checkpoint(module, *args, use_reentrant=False, **kwargs)


def one_fewer(lengths):
    return [*lengths[:-1], lengths[-1] - 1] if lengths[-1] > 1 else lengths[:-1]


WRONG = [
    ("04.1", replaying(python=False), "random.getstate()"),
    ("04.1", replaying(own=slice(0)), "generator.get_state()"),
    ("04.1", replaying(own=slice(1)), "the second generator draws other numbers"),
    ("04.1", replaying(default=False), "torch's default generator draws other numbers"),
    ("04.1", lessons_state, "random.getstate()"),
    ("04.1", replaying(seed="noting"), "read the state, change nothing"),
    ("04.1", replaying(seed="block"), "seeding is not replaying"),
    ("04.1", replaying(lazy=True), "nothing is brought back"),
    ("04.1", replaying(back="nothing"), "the block's draws count outside"),
    ("04.1", replaying(back="noted"), "leaves the noted state behind"),
    ("04.1", replaying(final=False), "in `finally:`"),
    ("04.1", replaying(swallow=True), "was swallowed"),
    ("04.1", replaying(once=True), "make a fresh one in every call"),
    ("04.1", replaying(bare=True), "return the function `replay`"),
    ("04.1", replaying(used_up=True), "used up or overwritten"),
    ("04.1", replaying(shared=True), "its own variable"),
    ("04.1", lambda *_: lambda: None, "gives no block for `with`"),
    ("04.2", real(inside="backward", weights=False, detach="none"), "no detach"),
    ("04.2", real(inside="backward", weights=False, detach="leaves"), "no detach"),
    ("04.2", real(keep="graph"), "the first run's graph is kept"),
    ("04.2", real(replay=False), "Dropout drew other numbers"),
    ("04.2", real(restore=False), "changed the random numbers outside"),
    ("04.2", real(inputs=False), "gradients of inputs are dropped"),
    ("04.2", real(grad=False), "under torch.no_grad()"),
    ("04.2", lambda module, *a, **k: module(*a, **k), "a checkpoint that saves everything"),
    ("04.2", real(keep="everything"), "a checkpoint that saves everything"),
    ("04.2", real(num_second=2), "it recomputes twice"),
    ("04.2", real(num_first=2), "ran 2 times in forward"),
    ("04.2", real(first_keywords=False), "The first run lost a keyword argument"),
    ("04.2", real(second_keywords=False), "The second run lost a keyword argument"),
    ("04.2", real(by_name=False), "only if apply() is handed it by itself"),
    ("04.2", real(weights=False), "ask for their gradients, too"),
    ("04.2", real(inside="backward", weights=False), "hand them to apply() as well"),
    ("04.2", real(inside="backward"), "it arrives twice"),
    ("04.2", real(wrap=first_only), "three results did not come out"),
    ("04.2", real(wrap=as_tuple), "a tensor, not a tuple of one"),
    ("04.2", real(through=False), "No gradient can reach the result"),
    ("04.2", real(keep="copies"), "inputs are copied"),
    ("04.2", real(keep="results"), "a graph leaks"),
    ("04.2", real(scale=0.5), "one for each argument of apply()"),
    ("04.2", checkpoint_by_function, "torch.autograd.grad fails"),
    ("04.2", checkpoint_by_hooks, "not by an autograd.Function of yours"),
    ("04.2", hooks_of_torch, "not by an autograd.Function of yours"),
    ("04.2", lambda *a, **k: None, "The layer never ran"),
    ("04.3", cutting(count=lambda k, n: n - 1), "the inputs of later parts are gone"),
    ("04.3", cutting(count=lambda k, n: k + 1), "a part's own input is among its blocks'"),
    ("04.3", cutting(count=lambda k, n: 0), "before it are alive as well"),
    ("04.3", cutting(count=lambda k, n: k - 1), "not everything can be kept"),
    ("04.3", cutting(keep_last=False), "the longest part belongs to the end"),
    ("04.3", cutting(change=lambda lengths: lengths[::-1]), "the longest part belongs to the end"),
    ("04.3", equal_segments, "longer parts fit as well"),
    ("04.3", lambda n, *_: [1] * n, "longer parts fit as well"),
    ("04.3", lambda n, *_: [n], "cut the chain"),
    ("04.3", cutting(change=one_fewer), "a segment off by one: the last blocks"),
    ("04.3", cutting(change=lambda n: [*n[:-1], n[-1] + 1]), "more than there are blocks"),
    ("04.3", lambda n, *_: [0, n], "a whole number of at least 1"),
    ("04.3", lambda n, *_: n, "a list of lengths is asked"),
    ("04.3", lambda *a: right["cut_chain"](*a) or [1], "say so with an empty list"),
    ("04.4", bill(hidden=4), "the written-out norm keeps x times 1/rms"),
    ("04.4", bill(hidden=6), "one tensor like x too many"),
    ("04.4", bill(hidden=8, tokens=2), "share one norm, with all that it keeps"),
    ("04.4", bill(hidden=9), "count it once"),
    ("04.4", bill(hidden=7, shared=0), "expand copies nothing"),
    ("04.4", bill(shared=1), "attention keeps a key and a value"),
    ("04.4", bill(tokens=0), "the norm keeps one number per token"),
    ("04.4", bill(tokens=2), "rsqrt keeps its result"),
    ("04.4", bill(heads=0), "one number per token and head"),
    ("04.4", bill(scores=True), "no tokens x tokens weights"),
    ("04.4", bill(wide=3), "silu needs its input"),
    ("04.4", bill(wide=2), "narrow needs the product"),
    ("04.4", bill(wide=5), "four tensors of its width"),
    ("04.4", bill(blocks=0), "the bytes of one block"),
    ("04.4", bill(each=1), "each takes 4 bytes"),
    ("04.4", bill(second=lambda v, width, n: 4 * v * width * n), "that runs again is alive too"),
    ("04.4", bill(kept=lambda n: 0), "beside the inputs of all"),
    ("04.4", bill(kept=lambda n: n), "counted twice"),
    ("04.4", bill(kept=lambda n: n - 2), "the last one's too"),
    ("04.4", lambda *a: (right["parallel_chain_bytes"](*a)[0],) * 2, "this is the plain chain"),
    ("04.4", lambda *a: 17, "Return two numbers"),
    ("04.5", right["colleagues_loss"], "segment off by one"),
    ("04.5", in_segments(skip_last=True), "segment off by one"),
    ("04.5", in_segments(stale=True), "reads a variable that has moved on"),
    ("04.5", in_segments(stale=True, reentrant=True), "reads a variable that has moved on"),
    ("04.5", in_segments(restore=False), "the random state was not replayed"),
    ("04.5", in_segments(reentrant=True), "no input of the first segment needs a gradient"),
    ("04.5", in_segments(last_too=True), "run it without a checkpoint"),
    ("04.5", in_segments(again=False), "a checkpoint that saves everything"),
    ("04.5", in_segments(twice=True, reentrant=True), "it recomputes twice"),
    ("04.5", in_segments(size=lambda length: length - 1), "segments have other lengths"),
    ("04.5", in_segments(size=lambda length: length + 1), "segments have other lengths"),
    ("04.5", each_block_alone, "segments have other lengths"),
    ("04.5", in_segments(cut=True), "detach nothing"),
    ("04.5", in_segments(extra=True), "the loss is not the plain run's"),
    ("04.5", keeps_squares, "bytes too many wait"),
    ("04.5", lambda *a: None, "no graph to go backward through"),
]
