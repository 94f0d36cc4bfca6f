"""Messages between the workers of one pipeline, about breakers and rollouts."""
