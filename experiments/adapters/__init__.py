"""Public data sets as logs. An adapter is a module with ``read(path) -> Interactions``; users get the sets."""
