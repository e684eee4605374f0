"""What is done with an aligned model."""
