"""What a record is: pure, and imports nothing of ours."""
