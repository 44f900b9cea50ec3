"""Function calls: inputs out, outputs back."""
