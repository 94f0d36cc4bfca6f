"""Model cards, and the repository of model versions on disk."""
