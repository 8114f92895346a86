"""`python -m octoroute` is `octoroute`."""

import sys

from octoroute.cli import main

sys.exit(main())
