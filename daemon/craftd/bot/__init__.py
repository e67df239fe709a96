"""The Telegram bot that gives keys: a process of its own, and a client of the daemon like any other."""
