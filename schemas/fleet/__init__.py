"""Messages between the workers of one pipeline: breakers and rollouts."""
