"""Other right hooks for lab 08. They travel to the ranks by value, each with what it needs."""

import torch
from torch.autograd.graph import register_multi_grad_hook


class Comings:
    """An object for each layer; the gradient of the layer's result says that backward begins."""

    def __init__(self, k, layer, gather, free):
        self.k, self.layer, self.gather, self.free = k, layer, gather, free
        self.num_left = 0
        layer.register_forward_pre_hook(self.enter)
        layer.register_forward_hook(self.leave)
        for parameter in layer.parameters():
            parameter.register_post_accumulate_grad_hook(self.count)

    def enter(self, module, inputs):
        self.gather(self.k)

    def leave(self, module, inputs, result):
        self.free(self.k)
        if torch.is_grad_enabled():
            self.num_left = len(list(self.layer.parameters()))
            result.register_hook(lambda gradient: self.gather(self.k))
        return result  # which replaces nothing

    def count(self, parameter):
        self.num_left -= 1
        if self.num_left == 0:
            self.free(self.k)


def by_objects(layers, gather, free):
    for k, layer in enumerate(layers):
        Comings(k, layer, gather, free)


def by_multi_hooks(layers, gather, free):
    """torch's hook on several tensors, made in each forward."""

    def make(k, layer):
        def after(module, inputs, result):
            free(k)
            if result.requires_grad:
                parameters = list(layer.parameters())
                register_multi_grad_hook(parameters, lambda _: free(k))

        layer.register_forward_pre_hook(lambda *_: gather(k))
        layer.register_forward_hook(after)
        layer.register_full_backward_pre_hook(lambda *_: gather(k))

    for k, layer in enumerate(layers):
        make(k, layer)


def last_one_stays(layers, gather, free):
    """The last layer is needed again at once: it is not freed in between."""

    def make(k, layer):
        left = set()

        def after(module, inputs, result):
            if k < len(layers) - 1 or not result.requires_grad:
                free(k)

        def before_backward(*_):
            left.update(layer.parameters())
            gather(k)

        def on_gradient(parameter):
            left.remove(parameter)
            if not left:
                free(k)

        layer.register_forward_pre_hook(lambda *_: gather(k))
        layer.register_forward_hook(after)
        layer.register_full_backward_pre_hook(before_backward)
        for parameter in layer.parameters():
            parameter.register_post_accumulate_grad_hook(on_gradient)

    for k, layer in enumerate(layers):
        make(k, layer)


class Ahead:
    """Neighbours in two dicts; asks for its own, then for the next, then waits."""

    def __init__(self, layers, start_gather, free):
        self.start_gather, self.free = start_gather, free
        self.after, self.before, self.last = {}, {}, None
        self.pending = [None] * len(layers)
        for k, layer in enumerate(layers):
            self.watch(k, layer)

    def watch(self, k, layer):
        left = []

        def enter_forward(*_):
            if k not in self.before:
                self.before[k], self.after[self.last] = self.last, k
                self.last = k
            self.enter(k, self.after.get(k))

        def enter_backward(*_):
            left.extend(layer.parameters())
            self.enter(k, self.before[k])

        def on_gradient(parameter):
            left.pop()
            if not left:
                self.leave(k)

        layer.register_forward_pre_hook(enter_forward)
        layer.register_forward_hook(lambda *_: self.leave(k))
        layer.register_full_backward_pre_hook(enter_backward)
        for parameter in layer.parameters():
            parameter.register_post_accumulate_grad_hook(on_gradient)

    def enter(self, k, following):
        for each in (k, following):
            if each is not None and self.pending[each] is None:
                self.pending[each] = self.start_gather(each)
        self.pending[k].wait()

    def leave(self, k):
        self.free(k)
        self.pending[k] = None


class EarlyBackward(Ahead):
    """Starts backward's first gather when forward has ended, beside the loss."""

    def leave(self, k):
        super().leave(k)
        if torch.is_grad_enabled() and k == self.last and len(self.before) == len(self.pending):
            self.pending[k] = self.start_gather(k)
