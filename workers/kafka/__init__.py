"""The only files that touch aiokafka's insides."""
