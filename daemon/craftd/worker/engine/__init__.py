"""Drawing: which images are computed next, and their denoising steps in shared model calls."""
