"""Where a record goes: names, ladder, routing and layout are pure; admin and embedded are shells."""
