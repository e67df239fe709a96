"""A training as this side sees it: a folder of pictures, its captions, its losses."""
