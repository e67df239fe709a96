"""One file per command group; each is imported when it is used."""
