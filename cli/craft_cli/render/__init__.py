"""Shows things to users: progress, tables, JSON, pictures in the terminal, durations and sizes."""
