"""Several learners side by side, and what can be said of them."""
