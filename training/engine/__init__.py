"""How a model learns on one device or on many: the same steps on plain torch or under accelerate."""
