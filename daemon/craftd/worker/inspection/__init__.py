"""craft's own checker of strangers' files, run in a process of its own before any library opens them.

Nothing here imports more than the standard library (but pictures, which need Pillow): what a hostile file meets is
`json`, `struct`, this, and for LoRAs the reading in `craftd.worker.lora`.
"""
