"""Public sets as logs: an adapter is a file with ``read(path) -> Interactions``; the sets themselves are the user's."""
