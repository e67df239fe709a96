"""The worker process: its socket, its mail, its options, its device and its main loop."""
