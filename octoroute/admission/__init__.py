"""MAY IT START: the limits of each key. Pure: no I/O, no clock, no log."""
