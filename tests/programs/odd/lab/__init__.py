"""A package of a program: modules that import each other relatively."""
