"""Where servers come from beside the config: a process of its own looks, and tells the supervisor."""
