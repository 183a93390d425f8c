"""Wrong answers to lab 05, programs and hooks: each switch is one mistake that learners make."""

import weakref

import torch
from torch import Tensor, nn

from utils.checks.truth_05_blocks import Block


def program(
    *, graph=False, detach=True, hoard=(), drop=True, hand_on=True, twice=False, copy=False,
    loss_graph=False, mode=False, reset=False, again=False, names=False, swapped=False,
):
    """The solution of 05.3 with one mistake."""

    def answer(actions, layers, x):
        stored, current, gradient, loss, kept = {}, x, None, None, []

        def advance(layer, x):
            if mode:
                torch.set_grad_enabled(False)
            with torch.set_grad_enabled(graph):
                output = layer(x)
            return output.detach() if detach else output

        def backward(layer, x):
            leaf = x.detach().requires_grad_()
            with torch.enable_grad():
                output = layer(leaf)
                output = layer(leaf) if again else output
            is_loss = loss is None
            root = output if hand_on or is_loss else output.sum()
            for _ in range(1 + twice):
                torch.autograd.backward(root, gradient if hand_on else None, retain_graph=twice)
            return output, leaf

        for action, k in actions:
            if action == "store":
                stored[k] = current.clone() if copy else current
            elif action == "load":
                current = stored[k]
            elif action == "drop":
                if drop:
                    del stored[k]
            elif action == "advance":
                current = advance(layers[k], current)
                kept += [current] if "advance" in hoard else []
            else:
                if reset:
                    for parameter in layers[k]._layer.parameters():
                        parameter.grad = None
                output, leaf = backward(layers[k], current)
                gradient = leaf.grad
                loss = (output if loss_graph else output.detach()) if loss is None else loss
                kept += [output] if "backward" in hoard else []
                if not names:
                    del output, leaf
        return (gradient, loss) if swapped else (loss, gradient)

    return answer


def whole_chain(actions, layers, x):
    leaf = x.detach().requires_grad_()
    loss = leaf
    for layer in layers:
        loss = layer(loss)
    loss.backward()
    return loss.detach(), leaf.grad


def hooks(
    *, weights="storage", strong=False, find=True, newest=False, all_move=False, dtype=True,
    strides=True, offset=True, hold=False, by_address=False, views=False, early=False,
):
    """The solution of 05.4 with one mistake."""

    def answer(store, model, memory_bytes):
        owned = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
        blocks, addresses, sizes = [], {}, weakref.WeakKeyDictionary()

        def is_weight(tensor):
            if weights == "parameter":
                return isinstance(tensor, nn.Parameter)
            return weights == "storage" and tensor.untyped_storage()._cdata in owned

        def block_of(tensor, alive):
            storage = tensor.untyped_storage()
            found = next((b for b in alive if find and b.is_of(storage)), None)
            if by_address:
                found = addresses.get(storage.data_ptr(), lambda: None)()
            if found is None:
                found = Block(storage)
                blocks.append((lambda b=found: b) if strong else weakref.ref(found))
                alive.append(found)
            addresses[storage.data_ptr()] = weakref.ref(found)
            sizes.setdefault(found, tensor.nbytes if views else found.num_bytes)
            return found

        def pack(tensor):
            if is_weight(tensor):
                return tensor
            alive = [b for reference in blocks if (b := reference()) is not None]
            block = block_of(tensor, alive)
            inside = [b for b in alive if b.in_memory]
            while inside and (all_move or sum(sizes[b] for b in inside) + early > memory_bytes):
                inside.pop(-1 if newest else 0).move(store)
            place = [
                tensor.storage_offset() if offset else 0,
                tensor.shape,
                tensor.stride() if strides else torch.empty(tensor.shape).stride(),
            ]
            kind = tensor.dtype if dtype else torch.float32
            return block, kind, place, tensor if hold else None

        def unpack(packed):
            if isinstance(packed, Tensor):
                return packed
            block, kind, place, _ = packed
            return torch.empty(0, dtype=kind).set_(block.storage(), *place)

        return pack, unpack

    return answer


def move_tensors(store, model, memory_bytes):
    def pack(tensor):
        flat = tensor.detach().contiguous().flatten().view(torch.uint8)
        return store.put(flat), tensor.dtype, tensor.shape

    return pack, lambda packed: store.get(packed[0]).view(packed[1]).view(packed[2])
