"""Weights that are kept packed: how they are, which layers hold them, and how files of them become networks.

`weight.py` one weight; `layers.py` the layers that compute with it; `packing.py` networks quantized as they are loaded;
`stored.py` what a file holds; `conversion.py` its names turned into diffusers'.
"""
