"""Which rows belong together, in which order they are visited, and what adapters make of them."""
