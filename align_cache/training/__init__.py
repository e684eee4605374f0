"""Stage 2: from a config to a trained run."""
