"""Octoroute: the gateway in front of your own model servers."""

__version__ = "2.0.0"
