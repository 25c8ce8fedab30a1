"""Hold back what may carry burned-in text, until a person decides."""
