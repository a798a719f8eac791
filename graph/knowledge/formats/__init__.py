"""The formats of documents, one module each: `read(data, name)` gives the pages of a file.

A module is imported only for a document of its format, in the process that reads it.
"""
