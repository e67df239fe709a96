"""How prompts are written: AUTOMATIC1111's emphasis and prompt editing, as texts. Nothing here knows a tokenizer."""
