"""Who does it: the shells that fetch, run, send and commit, and the pure scoring between them."""
