"""Ways to run a policy's forward pass, and the choice of the fastest that computes the same."""
