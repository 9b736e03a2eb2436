"""How good a policy is: greedy and sampled success, and pass@k before reinforcement."""
