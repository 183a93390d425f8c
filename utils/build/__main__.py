"""`python -m utils.build`."""

import sys

from utils.build.main import main

sys.exit(main())
