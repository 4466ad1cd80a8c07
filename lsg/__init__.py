"""LSG attention for Hugging Face checkpoints."""
