"""What a MONAI bundle brings along in `scripts/`: torch alone, nothing of Hilum."""
