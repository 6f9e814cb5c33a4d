"""Image classification sets, as infinite training and finite validation streams.

`tfamp.data.registry.load` is the door.
"""
