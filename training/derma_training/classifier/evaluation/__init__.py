"""Measure classifiers on a table of labelled pictures: `derma evaluate classifier --labels CSV`."""
