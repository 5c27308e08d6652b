"""How each compared method is trained: `train(inputs)` of the module named after it (`bridge-d1`: bridge_d1)."""
