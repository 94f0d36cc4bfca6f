"""The documentation, and the generator of the pages that are made from code (``python -m docs``)."""
