"""A training recipe: what cannot be is refused in one sentence, and its command says all of it."""

import argparse
import shlex
from dataclasses import FrozenInstanceError, fields, replace
from itertools import product

import pytest
from torch.distributed.run import get_args_parser

from utils.recipe import (
    ATTENTIONS,
    CHECKPOINTINGS,
    LIBRARIES,
    METHODS,
    METHODS_OF,
    NAMES,
    PRECISIONS,
    TrainingRecipe,
)


def every_recipe():
    """All that can be made of the choices, with a batch that is not the default's."""
    found = []
    choices = product(PRECISIONS, ATTENTIONS, CHECKPOINTINGS, METHODS, LIBRARIES, ((8, 1), (3, 5)))
    for precision, attention, checkpointing, method, library, (size, micro) in choices:
        ranks = 1 if method == "single" else 4
        try:
            found.append(TrainingRecipe(precision, attention, checkpointing, method, library,
                                        size, micro, ranks))  # fmt: skip
        except ValueError:
            continue
    return found


def reparsed(words, num_ranks):
    """The recipe that a parser with one option a field, and the recipe's defaults, makes of it."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    plain = TrainingRecipe()
    for each in fields(TrainingRecipe):
        if each.name != "num_ranks":
            default = getattr(plain, each.name)
            parser.add_argument(
                f"--{each.name.replace('_', '-')}", default=default, type=type(default)
            )
    return TrainingRecipe(**vars(parser.parse_args(words)), num_ranks=num_ranks)


def test_there_are_as_many_recipes_as_the_table_of_methods_says():
    ways = sum(map(len, METHODS_OF.values()))
    whole = sum(method in ("single", "ddp") for each in METHODS_OF.values() for method in each)
    assert len(every_recipe()) == (2 * ways + whole) * 2 * 2 * 2


def test_the_options_give_the_recipe_back():
    for recipe in every_recipe():
        assert reparsed(recipe.flags(), recipe.num_ranks) == recipe


def test_the_trainers_own_parser_gives_the_recipe_back():
    arguments = pytest.importorskip("utils.trainer.arguments")
    for recipe in every_recipe():
        words = [*recipe.flags(), "--folder", "run"]
        assert arguments.parse(words, recipe.num_ranks).recipe == recipe


def test_defaults_need_no_option():
    assert TrainingRecipe().flags() == ()
    assert TrainingRecipe().command() == "python -m utils.train"


@pytest.mark.parametrize("num_nodes", [1, 2, 4])
def test_torchrun_reads_its_command(num_nodes):
    for recipe in every_recipe():
        if recipe.method == "single":
            continue
        words = shlex.split(recipe.command("--steps", "7", num_nodes=num_nodes))
        assert words[0] == "torchrun"
        given = get_args_parser().parse_args(words[1:])
        assert int(given.nproc_per_node) * num_nodes == recipe.num_ranks
        assert (given.module, given.training_script) == (True, "utils.train")
        *options, steps, seven = given.training_script_args
        assert (steps, seven) == ("--steps", "7")
        assert reparsed(options, recipe.num_ranks) == recipe
        if num_nodes == 1:
            assert given.standalone and given.rdzv_endpoint == ""
            assert given.local_addr == "localhost"  # the machine's own name may have no address
        else:
            assert (given.nnodes, given.rdzv_endpoint) == (str(num_nodes), "$HEAD:29500")
            assert given.rdzv_backend == "c10d" and not given.standalone
            assert given.local_addr is None


def test_one_process_starts_without_torchrun():
    recipe = TrainingRecipe("bf16", checkpointing="blocks", batch_size=4)
    assert recipe.command("--text", "book.txt") == (
        "python -m utils.train --precision bf16 --checkpointing blocks --batch-size 4 "
        "--text book.txt"
    )


@pytest.mark.parametrize(
    ("recipe", "num_nodes", "words"),
    [
        (TrainingRecipe(method="ddp", num_ranks=4), 3, "4 ranks cannot spread evenly over 3"),
        (TrainingRecipe(method="ddp", num_ranks=4), 0, "4 ranks cannot spread evenly over 0"),
        (TrainingRecipe(method="ddp", num_ranks=2), 4, "2 ranks cannot spread evenly over 4"),
        (TrainingRecipe(), 2, "1 rank cannot spread evenly over 2 nodes"),
    ],
)
def test_nodes_that_cannot_share_the_ranks_are_refused(recipe, num_nodes, words):
    with pytest.raises(ValueError, match=words):
        recipe.command(num_nodes=num_nodes)


REFUSED = {
    "precision must be one of fp32, bf16, fp16, not 'fp8'.": dict(precision="fp8"),
    "attention must be one of fused, explicit, not 'flash'.": dict(attention="flash"),
    "checkpointing must be one of none, blocks, not True.": dict(checkpointing=True),
    "method must be one of single, ddp, zero1, zero2, zero3, fsdp, yafsdp, not 'zero'.":
        dict(method="zero"),
    "library must be one of torch, ours, deepspeed, not None.": dict(library=None),
    "batch_size must be a whole number from 1 on, not 0.": dict(batch_size=0),
    "batch_size must be a whole number from 1 on, not 8.0.": dict(batch_size=8.0),
    "micro_batches must be a whole number from 1 on, not -1.": dict(micro_batches=-1),
    "micro_batches must be a whole number from 1 on, not '2'.": dict(micro_batches="2"),
    "num_ranks must be a whole number from 1 on, not None.": dict(method="ddp", num_ranks=None),
    "num_ranks must be a whole number from 1 on, not True.": dict(num_ranks=True),
    "The library torch has no zero1 here, it has single, ddp, fsdp: add --library ours or "
    "--library deepspeed.": dict(method="zero1"),
    "The library torch has no yafsdp here, it has single, ddp, fsdp: add --library ours.":
        dict(method="yafsdp"),
    "The library deepspeed has no single here, it has zero1, zero2, zero3: add --library torch or "
    "--library ours.":
        dict(library="deepspeed"),
    "The method single is one process, but num_ranks is 2: take ddp, fsdp or another method.":
        dict(num_ranks=2),
    "fp16 needs loss scaling, which is here for single and ddp only: take bf16, or another method "
    "than fsdp.": dict(precision="fp16", method="fsdp", num_ranks=2),
    "fp16 needs loss scaling, which is here for single and ddp only: take bf16, or another method "
    "than zero3.": dict(precision="fp16", method="zero3", library="deepspeed", num_ranks=2),
}  # fmt: skip


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(sentence):
    with pytest.raises(ValueError) as refusal:
        TrainingRecipe(**REFUSED[sentence])
    assert str(refusal.value) == sentence


def test_what_changes_it_is_checked_too():
    recipe = TrainingRecipe("fp16", method="ddp", num_ranks=2)
    with pytest.raises(ValueError, match="another method than fsdp"):
        replace(recipe, method="fsdp")
    with pytest.raises(FrozenInstanceError):
        recipe.method = "fsdp"
    assert len({recipe, replace(recipe), TrainingRecipe()}) == 2


def test_its_name_says_what_differs_from_a_plain_step():
    assert TrainingRecipe().name == "fp32, one process"
    recipe = TrainingRecipe("bf16", "explicit", "blocks", "fsdp", "ours", num_ranks=2)
    assert recipe.name == "bf16, explicit attention, checkpointing, 2 x FSDP (ours)"
    assert TrainingRecipe(method="zero2", library="deepspeed").name == "fp32, ZeRO-2 (DeepSpeed)"
    assert NAMES.keys() == set(METHODS)
    same_batch = {replace(each, batch_size=8, micro_batches=1) for each in every_recipe()}
    assert len({each.name for each in same_batch}) == len(same_batch)


def test_a_step_takes_the_sequences_of_all_ranks_and_micro_batches():
    assert TrainingRecipe().sequences_per_step == 8
    recipe = TrainingRecipe(method="ddp", batch_size=3, micro_batches=5, num_ranks=4)
    assert recipe.sequences_per_step == 60
