"""The heart: policies, loss scaling and the numbers it is judged by. No flags, no files."""
