"""Offload's rungs: how much of a model that does not fit is on its device at once. The first has the most there."""

from __future__ import annotations

NONE, ENCODERS, MODEL, BLOCKS = RUNGS = ("none", "encoders", "model", "blocks")
AUTO = "auto"  # the first that fits

MEANINGS = {
    NONE: "all of it stays there",
    ENCODERS: "text encoders and autoencoder come one at a time",
    MODEL: "one network is there at a time",
    BLOCKS: "blocks come one after another: the weights travel there at each step, which is slow",
}
