"""The manual: pages for people in Markdown, and how they are found by topic."""
