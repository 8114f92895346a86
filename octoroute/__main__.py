"""`python -m octoroute` is `octoroute`."""

from octoroute.cli import main

main()
