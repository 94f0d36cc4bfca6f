"""The Kafka clients of a worker, and the only files that use private parts of aiokafka."""
