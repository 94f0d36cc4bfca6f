"""A version is proved before it is trusted."""
