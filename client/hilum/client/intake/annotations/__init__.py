"""Masks and boxes that the site's experts drew, tied to catalogued images and checked against their geometry."""
