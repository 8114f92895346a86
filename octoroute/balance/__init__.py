"""SELECT ENDPOINT: pure and synchronous. No I/O, no clock, no logging."""
