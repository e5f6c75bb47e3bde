"""Public data sets as logs. An adapter is a module with ``read(path) -> Interactions``; you get the set yourself."""
