"""The page at `/`: a few static files and what sends them."""
