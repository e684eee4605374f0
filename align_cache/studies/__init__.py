"""One setting under question: a sweep, judged and compared."""
