"""Faust: the tables of the fleet, their owner, and the sync with them."""
