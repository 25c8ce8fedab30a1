"""From planes to the volume that is kept."""
