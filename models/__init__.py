"""Models that score events. Cards, breakers, fallback and imputation are pure; sessions and the repository do I/O."""
