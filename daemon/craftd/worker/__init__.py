"""The worker: the one process that imports torch. It is reached through frames only (worker.proto).

Importing this package imports no torch; `python -m craftd.worker` does. It hides torchvision, which comes along with
Spandrel (`upscaling/reading.py`): a build that is not for the torch at hand, as PyPI's beside a torch for CPUs, fails
while it is imported, and transformers imports what it finds. craft needs nothing of it, and so draws the same with
it and without.
"""

from craftd.worker import torchvision

torchvision.hide()
