"""Round loop, aggregation, admission and checkpoints."""
