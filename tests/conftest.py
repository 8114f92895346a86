"""What holds for all tests: hypothesis draws the same examples in every run, and may take its time.

What other examples would find is nobody's fault who makes a change: look for it with
`pytest --hypothesis-profile=anew`.
"""

from hypothesis import HealthCheck, settings

ANEW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("anew", ANEW, max_examples=1000)
settings.register_profile("octoroute", ANEW, derandomize=True)
settings.load_profile("octoroute")
