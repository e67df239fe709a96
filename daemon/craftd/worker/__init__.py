"""The worker: the one process that imports torch. It is reached through frames only (worker.proto).

Importing this package imports no torch; `python -m craftd.worker` does. What it does is hide torchvision, which comes
with Spandrel (daemon/craftd/worker/upscaling/reading.py): builds of it that do not fit the torch at hand, as PyPI's beside a torch for
CPUs, fail when they are imported, and transformers imports what it finds. craft needs nothing of it, and drawing is the
same with and without.
"""

from craftd.worker import torchvision

torchvision.hide()
