"""The trainer behind `python -m utils.train`: systems, loop, log, checkpoints, start."""
