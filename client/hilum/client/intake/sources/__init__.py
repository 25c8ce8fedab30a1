"""Where files come from: a folder that is only read, and the inbox of what the network brought."""
