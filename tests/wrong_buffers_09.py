"""Lab 09's wrong plans of buffers, and wrong divisions, each with the words of its check."""

from functools import partial

from tests.wrong_builders_09 import mutant

plan, mean = partial(mutant, "09.3"), partial(mutant, "09.4")

SIZE = "sizes[place] = max(sizes[place], padded)"
COUNT = "count = min(num_buffers, len(layers))"
PADDED = "padded = -(-num_values // world_size) * world_size"
PLACES = "places = [k % count for k in range(len(layers))]"
BARE = 'units = [[name for name in layer if "norm" not in name] for layer in layers]'
RETURN = "return units, places, sizes"
LARGEST = f"sizes = [max(sizes)] * count\n    {RETURN}"
IN_LAYERS = "units = [list(layer) for layer in layers]"
NO_NORMS = "norms = []"
NORMS = "norms = [name for layer in layers for name in layer if \"norm\" in name]"
AVERAGE = f"""\
users = [sum(layer[n] for n in u) for layer, u in zip(layers, units, strict=False)]
    sizes = [sum(users[b::count]) // len(users[b::count]) for b in range(count)]
    sizes = [-(-size // world_size) * world_size for size in sizes]
    {RETURN}
"""
AVERAGE_OF_ALL = f"""\
users = [sum(layer[n] for n in u) for layer, u in zip(layers, units, strict=False)]
    sizes = [-(-(sum(users) // len(users)) // world_size) * world_size] * count
    {RETURN}
"""
PER_LAYER = f"""\
if norms:
        units.pop(), places.pop()
        mine = [[name for name in layer if "norm" in name] for layer in layers]
        units, places = units + mine, places + [None] * len(mine)
    {RETURN}
"""
EACH_ALONE = f"""\
units = [[name] for layer in layers for name in layer]
    places = [None] * len(units)
    {RETURN}
"""

PLANS = [
    (plan(RETURN, AVERAGE), "a buffer sized to the average layer"),
    (plan(RETURN, AVERAGE_OF_ALL), "a buffer sized to the average layer"),
    (plan(SIZE, "sizes[place] += padded"), "not all of them together"),
    (plan(PADDED, "padded = num_values"), "the padding is forgotten"),
    (plan(PADDED, "padded = num_values // world_size * world_size"), "the padding is forgotten"),
    (plan(PADDED, "padded = (num_values // world_size + 1) * world_size"), "needs none"),
    (plan(PADDED, "padded = -(-num_values // world_size)"), "this is a shard's size"),
    (plan(RETURN, LARGEST), "room for its own users only"),
    (plan("for name in unit)", "for name in layer)"), "norms are counted in the buffers"),
    (plan(COUNT, "count = len(layers)"), "one buffer per layer"),
    (plan(COUNT, "count = num_buffers", "[0] * count", "[world_size] * count"), "than layers"),
    (plan(PLACES, "places = [k * count // len(layers) for k in range(len(layers))]"),
     "neighbours share a buffer"),
    (plan(PLACES, "places = [0] * len(layers)"), "all layers share one buffer"),
    (plan(PLACES, "places = [(k + 1) % count for k in range(len(layers))]"), "buffer k modulo"),
    (plan(SIZE, "sizes[place] = padded"), "not the last"),
    (plan(SIZE, "sizes[place] = sizes[place] or padded"), "not the first"),
    (plan(SIZE, "sizes[place] = min(sizes[place] or padded, padded)"), "not the smallest"),
    (plan(RETURN, PER_LAYER), "norms are gathered per layer"),
    (plan(BARE, IN_LAYERS, NORMS, NO_NORMS), "norms travel with their layers"),
    (plan(RETURN, EACH_ALONE), "a unit per parameter"),
    (plan(NORMS, NO_NORMS), "one unit for all of them"),
    (plan("if norms:", "if True:"), "a unit is empty"),
    (plan("places.append(None)", "places.append(0)"), "None is their place"),
    (plan("places.append(None)", "pass"), "None for the unit of the norms"),
    (plan(PLACES, "places = [k % count + 1 for k in range(len(layers))]",
          "sizes[place]", "sizes[place - 1]"), "places count from 0"),
    (plan(PADDED, "padded = num_values / world_size * world_size"), "must be whole numbers"),
    (plan(RETURN, "pass"), "without a return"),
    (plan(RETURN, "return units, sizes"), "Return (units, places, sizes)"),
]  # fmt: skip

ZERO = "buffers[place].zero_()"
FINISH = "            finish(place)\n            fill("
START = "under_way[place] = layer, start_sum(buffers[place])"
ADD = "sums[layer] += message.wait()"
DIVIDE = "return [each / (world_size * num_micro) for each in sums]"
AT_END = "    for place in range(len(buffers)):\n        finish(place)\n"
PLACE = "place = turn % len(buffers)"
BEFORE = "buffers[place] /= {}\n            " + START

MEANS = [
    (mean(FINISH, "            fill("), "a buffer is overwritten while"),
    (mean(FINISH, "            fill(", START, "message = start_sum(buffers[place])\n            "
          "late.append((layer, message))", "    turn = 0", "    late, turn = [], 0",
          AT_END, "    for layer, message in late:\n        sums[layer] += message.wait()\n"),
     "a buffer is overwritten while"),
    (mean(START, f"{START}; finish(place)"), "no overlap"),
    (mean(PLACE, "place = layer % len(buffers)"), "Count turns, not layers"),
    (mean(PLACE, "place = 0"), "no overlap"),
    (mean(AT_END, ""), "messages are never waited for"),
    (mean(ADD, "sums[layer] += message.wait() / (world_size * num_micro)"), "divided twice"),
    (mean(ADD, "sums[layer] += message.wait() / num_micro"), "divided twice"),
    (mean(ADD, "sums[layer] += message.wait() / world_size"), "divided twice"),
    (mean(START, BEFORE.format("world_size * num_micro"), DIVIDE, "return sums"),
     "divided before the sum, in 16 bits"),
    (mean(START, BEFORE.format("num_micro"), " * num_micro)", ")"),
     "divided before the sum, in 16 bits"),
    (mean(START, BEFORE.format("world_size"), "(world_size * num_micro)", "num_micro"),
     "divided before the sum, in 16 bits"),
    (mean(" * num_micro)", ")"), "not divided by the number of micro-batches"),
    (mean("(world_size * num_micro)", "num_micro"), "not divided by the number of ranks"),
    (mean(DIVIDE, "return sums"), "never divided"),
    (mean("(world_size * num_micro)", "(world_size * num_layers)"), "number of layers"),
    (mean("    sums =", "    import torch.distributed as dist\n    sums =", DIVIDE,
          "return [each / (world_size * num_micro) if dist.get_rank() == 0 else each "
          "for each in sums]"), "only some ranks divide"),
    (mean(ADD, "sums[layer] = message.wait()"), "only one micro-batch counts"),
    (mean(f"{ZERO})", "buffers[place])"), "zero it first"),
    (mean(ADD, "sums[layer] = (sums[layer].to(buffers[0].dtype) + message.wait().to("
          "buffers[0].dtype)).float()"), "added up in 16 bits"),
    (mean("each in sums]", "each in sums[::-1]]"), "those of other layers"),
    (mean(DIVIDE, "return [0 * each for each in sums]"), "all-zero gradients"),
    (mean(DIVIDE, "return [(each / (world_size * num_micro)).bfloat16() for each in sums]"),
     "shards must be fp32"),
    (mean("reversed(range(num_layers))", "range(num_layers)"), "from the last layer to the first"),
    (mean(f"fill(micro, layer, {ZERO})", "buffers[place].copy_(whole(fill, micro, layer, buffers))",
          "    turn = 0", "    def whole(fill, micro, layer, buffers):\n"
          "        new = torch.zeros_like(buffers[0])\n        fill(micro, layer, new)\n"
          "        return new\n\n    turn = 0"), "copies are allocations"),
    (mean("sums = [torch.zeros(", "kept = []\n    sums = [torch.zeros(",
          ADD, "kept.append(message.wait())\n            sums[layer] += kept[-1]"),
     "one for each layer is enough"),
    (mean(START, "if micro == num_micro - 1:\n                " + START), "number of messages"),
    (mean(AT_END, "    import torch.distributed as dist\n    if dist.get_rank() == 0:\n"
          "        return sums\n" + AT_END), "the order of messages differs between ranks"),
    (mean(DIVIDE, "pass"), "without a return"),
    (mean("each in sums]", "each in sums[1:]]"), "one shard for each layer"),
]  # fmt: skip
