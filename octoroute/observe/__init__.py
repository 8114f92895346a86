"""OBSERVE: turns the outcome of a request into metrics and one log line."""
