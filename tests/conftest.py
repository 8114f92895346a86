"""What holds for all tests: how long something takes is no failure, so hypothesis has no deadline."""

from hypothesis import settings

settings.register_profile("octoroute", deadline=None)
settings.load_profile("octoroute")
