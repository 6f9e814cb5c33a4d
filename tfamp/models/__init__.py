"""The networks: names on one side, `keras.Model`s that give logits on the other."""
