"""The real thing: `craft`, `craftd` and a worker with torch."""
