"""Which LoRAs fit which models, and how much of them: found out once, kept, and told by every face alike."""
