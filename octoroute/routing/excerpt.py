"""How text that is not ours (a client's, a model's) is quoted in a message: short, and on one line.

Unprintable characters become spaces, so that a quoted text can't forge a log line or move a terminal's
cursor.
"""


def excerpt(text: str, limit: int) -> str:
    """The first `limit` characters, printable. A cut leaves no mark: never longer than `limit`."""
    cut = text[:limit]
    return cut if cut.isprintable() else "".join([c if c.isprintable() else " " for c in cut])
