"""Classifiers that judge features and embeddings."""
