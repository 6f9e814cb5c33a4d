"""Reads finished runs and says what a precision policy bought; needs no TensorFlow."""
