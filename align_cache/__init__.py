"""align-cache: frozen encoders run once; adapters trained and judged on the cache."""
