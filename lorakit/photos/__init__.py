"""A photo as pixels: decoded, looked at, shrunk, and cut to the sizes that a base is trained at."""
