"""Where a record goes. names, ladder, hold, routing and layout are pure; admin and embedded do I/O."""
