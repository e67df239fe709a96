"""Storms: a fault at a chosen moment, at a real daemon, and one checker that looks at what is left.

What can go wrong stands in `faults.py`, when in `moments.py`; a `Scene` is one craft in which that happens.
The short ones are tests; the long ones are programs (`make storms`, or `python -m tests.storms.kills
--daemon 1000 --seed 7`). All are planned by a seed, which is printed, and given back replays the plan.
"""
