"""RDT: the published diffusion transformer (RDT-1B), and the same class at small size as the diffusion baseline."""
