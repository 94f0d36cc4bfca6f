"""What people write in files: durations, sizes, and the refusal of a mistake."""
