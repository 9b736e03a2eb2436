"""What a run will need of its devices, told before anything is allocated."""
