"""Lab 08's wrong answers to "does it pay?", each with the words that its check must answer with."""

from functools import partial

from tests.wrong_builders_08 import mutant

pay = partial(mutant, "08.5")

ROOT_AND_LAYERS = "num_gpus * (2 * root + (2 * 2 + job.gradient_bytes) * layer)"
UP_LAYER, UP_ROOT = "-(-job.layer_values // num_gpus)", "-(-job.root_values // num_gpus)"
HELD = "16 * (job.num_layers * layer + root)"
ACTIVATIONS = "activation_bytes = job.activation_bytes * job.num_tokens"
TOKENS = "math.ceil(max(gather_s / token_s, (gather_s + reduce_s) / (2 * token_s)))"
LINK = "8 * (num_gpus - 1) * layer / job.link_bits_per_s"
LATE = ("max(0.0, gather_s - compute_s) + max(0.0, gather_s + reduce_s - 2 * compute_s)")
USD = "job.num_layers * late_s * num_gpus * job.usd_per_hour / 3600"

PAYS = [
    (pay(f"held_bytes + whole_bytes + {'activation_bytes'}", "held_bytes + activation_bytes"),
     "whole layers are forgotten"),
    (pay(ROOT_AND_LAYERS, "num_gpus * job.gradient_bytes * layer"), "whole weights are forgotten"),
    (pay("(2 * 2 + job", "(2 + job"), "two layers are whole"),
    (pay("(2 * root + ", "("), "the root is whole as well"),
    (pay("(2 * 2 + job.gradient_bytes)", "(2 * 2)"), "gradients are whole before they leave"),
    (pay(" + whole_bytes + activation_bytes", " + whole_bytes"), "activations are not counted"),
    (pay(ACTIVATIONS, "activation_bytes = job.activation_bytes"), "of one token are counted"),
    (pay(ACTIVATIONS, f"{ACTIVATIONS} / num_gpus"), "activations are divided by N"),
    (pay("whole_bytes = num_gpus * ", "whole_bytes = "), "whole layers are divided by N"),
    (pay("(2 * root + (2 * 2 +", "(4 * root + (4 * 2 +"), "gathered weights are bf16"),
    (pay("(2 * 2 + job", "(2 * job.num_layers + job"), "all layers are whole at once"),
    (pay(UP_LAYER, "job.layer_values / num_gpus", UP_ROOT, "job.root_values / num_gpus"),
     "no padding"),
    (pay(UP_LAYER, "job.layer_values // num_gpus", UP_ROOT, "job.root_values // num_gpus"),
     "no padding"),
    (pay(HELD, "16 * -(-(job.num_layers * job.layer_values + job.root_values) // num_gpus)"),
     "padded once for the whole model"),
    (pay("        return None\n", "        return num_gpus, 0, 0.0\n"), "return None"),
    (pay("4097", "100_000"), "return None"),
    (pay(TOKENS, "math.ceil(gather_s / token_s)"), "only forward's gather is hidden"),
    (pay(TOKENS, "math.ceil(gather_s / (2 * token_s))"), "only the gather is hidden in backward"),
    (pay(TOKENS, "math.ceil((2 * gather_s + reduce_s) / (3 * token_s))"),
     "all messages against all compute"),
    (pay(TOKENS, "math.ceil((gather_s + reduce_s) / token_s)"), "twice too many"),
    (pay(LINK, LINK.removeprefix("8 * ")), "bits for bytes"),
    (pay(LINK, f"8 * {LINK}"), "bits for bytes, the other way"),
    (pay("(num_gpus - 1) * layer", "num_gpus * layer"), "(N - 1)/N is forgotten"),
    (pay("(num_gpus - 1) * layer", "(num_gpus > 1) * layer"), "one shard of N is sent"),
    (pay("return num_gpus, num_tokens, usd", "return num_gpus, math.ceil(num_gpus * max(gather_s / "
         "token_s, (gather_s + reduce_s) / (2 * token_s))), usd"), "tokens of all GPUs"),
    (pay("reduce_s = 2 * value_s, job.gradient_bytes *", "reduce_s = 2 * value_s, 4 *"),
     "gradients travel in gradient_bytes"),
    (pay("reduce_s = 2 * value_s, job.gradient_bytes *", "reduce_s = 2 * value_s, 2 *"),
     "of gradient_bytes a value"),
    (pay("math.ceil", "math.floor"), "rounded down"),
    (pay("math.ceil", ""), "must be whole, rounded up"),
    (pay(LATE, "max(0.0, gather_s - compute_s)"), "only forward's exposed rest"),
    (pay(LATE, "max(0.0, gather_s + reduce_s - 2 * compute_s)"), "only backward's exposed rest"),
    (pay(LATE, "2 * gather_s + reduce_s"), "all messages are paid for"),
    (pay(LATE, "max(0.0, 2 * gather_s + reduce_s - 3 * compute_s)"),
     "each of forward and backward"),
    (pay(LATE, "2 * gather_s + reduce_s - 3 * compute_s"), "the rest below zero is no credit"),
    (pay("gather_s + reduce_s - 2", "gather_s - 2"), "the reduction is left out"),
    (pay(USD, "job.num_layers * late_s * job.usd_per_hour / 3600"), "one GPU's dollars"),
    (pay(USD, USD.removeprefix("job.num_layers * ")), "one layer's rest"),
    (pay(USD, USD.replace("job.num_layers", "(job.num_layers - 1)")), "one layer is left out"),
    (pay(USD, USD.removesuffix(" / 3600")), "an hour has 3,600"),
    (pay(USD, "job.num_layers * late_s"), "seconds: dollars are asked"),
    (pay(USD, f"{USD} / job.num_tokens"), "per token"),
    (pay("return num_gpus, num_tokens, usd", "return num_gpus"), "Return three numbers"),
    (pay("return num_gpus, num_tokens, usd", "pass"), "without a return"),
]  # fmt: skip
