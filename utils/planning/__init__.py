"""The planner in parts: bytes, seconds, dollars, and the published runs that check them.

How it works, from the bottom up:

    texts                      numbers, names and hints as the planner writes them
    layer_words, layer_bytes   what comes and goes while a layer computes, in three precisions
    step_bytes, sharding_bytes the moments of a step under any method
    recipe_bytes               bytes of every `TrainingRecipe`: held, and at the peak
    assumptions                every constant of time, with its source
    layer_time, step_time      seconds of a step by part
    request, hour_price        what is asked, and what an hour costs
    options, advice            recipes with their problems; single changes that help
    plan_table                 a plan as text, and the command that trains by it
    published                  predicted against reported GPU-hours
    this_machine               the same for the machine at hand, from small measurements

`utils.planner` puts them together. Left out: what each module names; above all tensor and pipeline
parallelism.
"""
