"""The aggregation side: it sees studies, updates and counts, never data."""
