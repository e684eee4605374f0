"""Stage 1: frozen encoders over a dataset, once."""
