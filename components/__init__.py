"""What the work is made of: codecs, adapters, scenes, training and evaluation."""
