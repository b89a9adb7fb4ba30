"""What each stage gained and cost, for people: one HTML page and its Markdown twin. Imports no torch."""
