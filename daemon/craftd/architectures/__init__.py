"""Data: what a single-file checkpoint does not carry itself, as diffusers folders without weights, and vocabularies.

NAME/           model_index.json and each part's configuration
tokenizers/     vocabularies, for the folders' tokenizers (see the README there)
"""
