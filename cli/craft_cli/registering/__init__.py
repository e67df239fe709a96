"""Models and LoRAs from elsewhere, on their way into the daemon."""
