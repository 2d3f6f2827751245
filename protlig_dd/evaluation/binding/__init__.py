"""What a model says about the binding of given pairs."""
