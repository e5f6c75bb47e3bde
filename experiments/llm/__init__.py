"""Commands for language models that play applicants: check, record, serve and demonstrate them."""
