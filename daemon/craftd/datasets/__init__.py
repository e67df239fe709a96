"""Datasets: uploaded pictures and captions to train on."""
