"""The networks: names on one side, `keras.Model`s with float32 logits on the other."""
