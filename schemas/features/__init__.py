"""The features of events: what a model takes, and the columns of a batch."""
