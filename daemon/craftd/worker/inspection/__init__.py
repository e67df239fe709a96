"""craft's own checker of strangers' files, run in a process of its own before any library opens them.

Nothing here imports more than the standard library: what a hostile file meets is `json`, `struct` and this.
"""
