"""DECIDE TIER: pure and synchronous. No I/O, no clock, no logging."""
