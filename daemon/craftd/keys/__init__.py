"""Keys: who may call from afar, and how much."""
