"""From the pixels of a file to values with units."""
