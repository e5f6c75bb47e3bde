"""One run: what a config says is built, trained, recorded, evaluated and read again."""
