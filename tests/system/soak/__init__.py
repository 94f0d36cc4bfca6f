"""The soak test: workers under a seeded schedule of faults, and a verifier that settles every event afterwards."""
