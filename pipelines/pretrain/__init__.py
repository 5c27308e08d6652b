"""How each shipped weight is made."""
