"""What may leave a site, and in what form."""
