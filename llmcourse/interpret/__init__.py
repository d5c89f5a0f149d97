"""What happens inside a model: look, change a part, and see what follows."""
