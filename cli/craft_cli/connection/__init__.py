"""The way to a daemon: found, started, replaced, asked."""
