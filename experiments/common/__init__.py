"""What the experiments share: errors, running a script, results, text data, models, fine-tuning."""
