"""Stage 3: what a run is worth."""
