"""Simulated llama.cpp and vLLM servers, well-behaved or with faults. Imports nothing else of octoroute."""

from octoroute.demo.faults import FAULTS
from octoroute.demo.server import SimulatedServer
from octoroute.demo.wire import CLOSE, HALF_CLOSE, RESET, STALL, Request, Step

__all__ = ["CLOSE", "FAULTS", "HALF_CLOSE", "RESET", "STALL", "Request", "SimulatedServer", "Step"]
