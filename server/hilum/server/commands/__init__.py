"""`hilum admin ...`: one file a group, each with its options, one call, and what is printed."""
