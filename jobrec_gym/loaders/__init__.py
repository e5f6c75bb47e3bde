"""Sources of markets: the generated default, official releases, and a user's own files.

``load_market("SCHEME:PATH")`` imports the module that it needs; nothing is imported here.
"""
