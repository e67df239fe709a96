"""Enlarging pictures: upscalers' files read, their networks run tile by tile, what they make brought to a size."""
