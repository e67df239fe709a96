"""A finished picture: its latents become pixels, and these a file with its provenance."""
