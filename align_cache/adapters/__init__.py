"""The heads that are trained on frozen features, and their weights on disk."""
