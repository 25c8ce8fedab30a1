"""What a site keeps in its state folder: the catalogue of its images, their arrays, its label tables, and how they were made."""
