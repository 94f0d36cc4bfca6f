"""What answers a record: cards, breaker, fallback and imputation are pure; session and repository are shells."""
