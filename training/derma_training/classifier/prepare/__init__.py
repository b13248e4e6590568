"""From data sets as they are published to one manifest: layouts, borders, near-duplicates, folds."""
