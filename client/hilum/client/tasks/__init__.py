"""What a site uses the encoder for: one file a task over the `Task` protocol, and what tasks share."""
