"""The model hub's client side: repositories listed, files fetched into the Hugging Face cache.

`client.py` is what the front calls. The work is done in a process of its own (`python -m
craftd.hub`), which alone meets the network and ends with its caller. Nothing here imports torch.
"""
