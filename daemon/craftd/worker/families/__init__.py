"""One module for each architecture; all of them look the same from outside (base.py)."""
