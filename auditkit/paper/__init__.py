"""What is attached to a paper.

For a reader: ``questions`` (what is asked), ``citations`` and ``estimate_text`` (how facts are
told), ``neurips`` and ``survey`` (the items), ``checklist`` (all of it), ``rendering``
(Markdown, LaTeX).
"""
