"""`octoroute doctor`: asks model servers what they support, and writes the config's table for each.

Blocking code with threads, because it is no part of a gateway: it ends when all have answered.
"""

from octoroute.doctor.command import run

__all__ = ["run"]
