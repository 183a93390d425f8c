"""Run with `python -m utils.slides`, also by `make slides`."""

import sys

from utils.slides.main import main

if __name__ == "__main__":
    sys.exit(main())
