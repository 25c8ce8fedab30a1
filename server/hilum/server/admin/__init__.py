"""What the federation's admin does: the federation's keys, its sites, and the queue of runs."""
