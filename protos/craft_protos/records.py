"""The names in a record of the daemon's log: one JSON object, these fields first, then the event's own."""

TIME, LEVEL, LOGGER, EVENT = HEAD = ("time", "level", "logger", "event")
TRACEBACK = "traceback"  # the last one, where an exception was logged
