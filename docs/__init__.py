"""Documentation, and the pages in it that are generated from code (``python -m docs``)."""
