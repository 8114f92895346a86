class Unreadable(ValueError):
    name: str
    def __init__(self, name: str) -> None: ...

class Splicer:
    def __init__(
        self, model: bytes, temperature: bytes, max_tokens: bytes, stream_options: bytes
    ) -> None: ...
    def splice(
        self, body: bytes, fill: bool, with_stream_options: bool, as_stream: bytes = b""
    ) -> list[bytes | memoryview]: ...
