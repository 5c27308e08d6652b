"""Section 2 of the paper as a tool: how information flows through a vision tower, and what compression does to it.

`cotam analyze` is the door. Nothing here keeps an attention tensor: a tower's attention is seen layer by layer while
it is computed (`encoder.py`), turned into a few numbers per token and then per image (`flow.py`, `similarity.py`), and
forgotten.

Shapes in this folder: B images in a batch, V versions of an image (the raw one first, then a compressed one per
setting), I images in all, L layers, H heads, T tokens, N patches among them (gh x gw, row by row), D tower width,
S settings (a codec at a quality), R bootstrap resamples.
"""
