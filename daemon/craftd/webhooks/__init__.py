"""Tells a caller's own server that its job has ended: signed, tried again, to hosts alone that the admin lists."""
