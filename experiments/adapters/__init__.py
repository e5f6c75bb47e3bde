"""Adapters: modules that read public data sets as logs.

Each has a function ``read(path, encoder) -> Interactions``. You get the data sets yourself.
"""
