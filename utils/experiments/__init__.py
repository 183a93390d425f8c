"""Timed experiments that `make record` runs at full size and lessons show beside one's own run."""
