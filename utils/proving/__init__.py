"""The parts of `python -m utils.prove`: every notebook run many times, under made-hard conditions.

The command makes a list of notebooks and conditions (plan.py). For each repetition it starts one
keeper (keeper.py), which limits the visible cores, starts the load (load.py) and pytest, and ends
all of them however it goes. What pytest wrote for machines is read (results.py), becomes a line of
records.jsonl (records.py), and the records of many invocations add up to one table (summary.py).
"""
