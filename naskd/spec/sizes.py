"""The size of images: one number where they are square, as most are, or height and width."""

Size = int | tuple[int, int]
"""Of an image in pixels: the side of a square, or ``(height, width)``."""


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def size_of(height: int, width: int) -> Size:
    """The inverse of :func:`sides`: a number where they are equal."""
    return height if height == width else (height, width)
