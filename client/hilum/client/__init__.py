"""Everything that touches patient data, and nothing else does."""
