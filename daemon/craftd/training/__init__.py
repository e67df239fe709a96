"""Train jobs: what is asked for, what is kept of them while they run, and how they end."""
