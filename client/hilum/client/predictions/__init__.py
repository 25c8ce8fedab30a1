"""What a site's own model says of its images, as files that a PACS and other programs open. They stay in the hospital."""
