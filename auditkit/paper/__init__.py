"""What is attached to a paper.

For a reader: ``questions`` (what is asked), ``citations`` (how facts are worded), ``neurips`` and
``survey`` (the items), ``checklist`` (all of it), ``rendering`` (Markdown, LaTeX).
"""
