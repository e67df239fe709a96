"""What agents are told of craft's tools, over stdio and over HTTP alike, and how much a tool gives them."""

from __future__ import annotations

MOST_PICTURES = 8  # of one call: they are all sent to the client
SHOWN_SIDE, SHOWN_BYTES = 1024, 700_000  # a larger picture is shown smaller; its file is whole

PROMPT = "What to draw. <lora:NAME:0.8> in it applies a LoRA."
NEGATIVE = "What to keep out."
MODEL = "A name of list_models; the configured one if not given."
SIDE = "Pixels; the model's own if not given."
STEPS = "Denoising steps; the model's own if not given."
GUIDANCE = "Guidance scale; the model's own if not given."
SEED = "The same seed and settings give the same picture; else random."
COUNT = f"Pictures, {MOST_PICTURES} at most; their seeds are one after another."
SAMPLER = "A name of list_samplers, with or without a schedule."
LORAS = "NAME or NAME:WEIGHT each, of list_loras."
STRENGTH = "From 0, the picture as it is, to 1, hardly anything left of it."
MASK = "A picture, named as `image` is: only what is white in it is drawn anew."
REFERENCES = "Pictures that the model is shown, for models that take references."
SCALE = "Times as wide and high; the upscaler's own if not given."
UPSCALER = "Its name, or lanczos; the usual one if not given."
JOB = "Its id, or the beginning of it."
FITTING = "Only those that fit this model."
LIMIT = "The newest so many."
