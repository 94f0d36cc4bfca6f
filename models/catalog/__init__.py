"""What may answer: model cards, and the repository of versions on disk."""
