"""How events are encoded: Confluent's framing, and readers of Avro and Protobuf that decode a batch of one schema."""
