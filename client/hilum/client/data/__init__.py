"""What a study reads of a site: packed images, labels, the split by patient, and which images show the same."""
