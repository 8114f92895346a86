"""Simulated llama.cpp and vLLM servers, well-behaved or with faults. Imports nothing else of octoroute."""
