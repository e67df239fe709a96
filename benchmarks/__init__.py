"""Every speed or quality claim, as a script that prints it: `python -m benchmarks.NAME`."""

from craftd import worker as worker  # hides a torchvision that is not for this torch
