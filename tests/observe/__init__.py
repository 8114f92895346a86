"""Tests of octoroute/observe/."""
