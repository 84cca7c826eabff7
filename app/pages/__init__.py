"""Pages and the walk over them: all that a breadth-first walk needs of one text, as compact columns.

Protects: a page never changes once made, and the walk gives the published answer whatever it is read from.
"""
