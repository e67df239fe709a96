"""The rows of the registry, by what draws with them."""
