"""The loss-scaling lab: what float16 loses of a gradient, and what a loss scale gives back."""
