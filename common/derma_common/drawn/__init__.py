"""Drawn skin: scenes and a moving camera with exact boxes, made from numbers alone.

No photograph goes in, so what comes out may be shipped, seeded and compared to the pixel. It feeds the
tests, the sample recording, `synthetic://` sources and a part of the detector's training.
"""
