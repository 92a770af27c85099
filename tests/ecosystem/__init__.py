"""Libraries by name: loops and studies of each, in an environment of its own."""
