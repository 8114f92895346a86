"""MAY IT START: the limits of each key, who waits for a place. Pure: no I/O, no clock, no log."""
