"""Loaded models: read from files, kept within a memory budget, and unloaded again."""
