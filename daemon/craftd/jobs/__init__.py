"""Jobs: accepted, queued, dispatched to the worker, finished once."""
