"""What the people of a site see of their own data: pictures, counts, and which files were set aside. Nothing of it leaves."""
