"""Documents in, passages out; `library.Library` is the face that the rest of the code uses."""
