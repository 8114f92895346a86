CUT: int
END: int

def abridge(body: bytes) -> tuple[bytes, tuple[int, ...]] | None: ...
