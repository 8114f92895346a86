"""STREAM: asynchronous I/O towards the model servers."""
