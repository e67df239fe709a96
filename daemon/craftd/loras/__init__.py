"""LoRAs: which there are, by which names, and where their files lie."""
