"""One router per contract, each made from the services."""
