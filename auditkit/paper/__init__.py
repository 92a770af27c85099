"""What is attached to a paper.

Checklists: ``questions`` (records), ``citations`` (how facts are worded), ``survey``, ``neurips``,
``topics`` and ``recording_facts`` (facts), ``survey_questions``, ``neurips_questions``,
``paper_lists`` and ``artifact_lists`` (what is asked, by ``asking``), ``lists`` (all of them),
``checklist`` (filled), ``rendering`` (Markdown, LaTeX) and ``checklist_page``, by ``escaping``.
For an archive: ``crate`` and ``attribution``. Of the report's page: ``markup`` and ``style``
(HTML, a ``whole_page``), ``words`` (the manual's), ``timeline`` and ``pictures`` (by ``drawing``),
``report_tables``, ``self_check`` (in a browser), ``report_page`` (all of it).
"""
