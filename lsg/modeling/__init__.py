"""The remote code: what conversion copies beside the weights. It imports itself, torch and transformers only."""
