"""Random streams: seeded, frozen and put back, and what no contract covers.

For a reader: ``streams``, ``per_sample`` (augmentation by seed, epoch, index).
"""
