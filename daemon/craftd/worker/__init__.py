"""The worker: the one process that imports torch. It is reached through frames only (worker.proto).

Importing this package imports no torch; `python -m craftd.worker` does.
"""
