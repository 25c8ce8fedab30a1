"""What a site uses the encoder for."""
