"""Models: which there are, what they default to, and which are in memory."""
