"""From sources/ to notebooks/, labs/ and solutions/; `python -m utils.build` runs it."""
