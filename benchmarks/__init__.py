"""Every speed or quality claim, as a script that prints it: `python -m benchmarks.NAME`."""
