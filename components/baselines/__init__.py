"""What the codec is compared with."""
