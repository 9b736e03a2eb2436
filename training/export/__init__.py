"""From a trained policy to the bundle that a robot PC serves."""
