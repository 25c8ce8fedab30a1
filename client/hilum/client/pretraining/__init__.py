"""The local loop: plain functions over data, method and seeds; it knows nothing of the federation's transport."""
