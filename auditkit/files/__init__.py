"""The one room that opens files: written whole or not at all, read with distrust.

For a reader: ``locks``, ``artifacts`` (files that somebody else's manifest names), ``store``
(everything else), ``run_folder`` (a study's) and ``recording_folder`` (a Recorder's).
"""
