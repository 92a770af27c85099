"""Random streams: seeded, frozen and put back, and what no contract covers.

For a reader: ``streams``, ``uncovered``, ``per_sample`` (augmentation by seed, epoch, index).
"""
