"""The bytes of an image file to RGB8 pixels, and pixels to colour features.

Reads one file's bytes; leaves an array or a reject with its code. Imports core and schemas.
"""
