"""What is attached to a paper.

For a reader: ``questions`` (what is asked), ``citations`` (how facts are worded), ``neurips`` and
``survey`` (the items), ``checklist`` (all of it), ``rendering`` (Markdown, LaTeX). Of the page:
``markup`` and ``style`` (HTML), ``words`` (the manual's), ``timeline`` and ``pictures`` (by
``drawing``), ``report_tables``, ``self_check`` (in a browser), ``report_page`` (all of it).
"""
