"""The queue: which job goes to which worker, and what becomes of it."""
