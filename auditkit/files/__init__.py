"""The one room that opens files of users: written whole or not at all, read with distrust.

For a reader: ``locks``, ``artifacts`` (files that somebody else's manifest names), ``store``
(everything else), ``run_folder`` (a study's: what is complete, what ``--resume`` finds, when
partial files are published) and ``recording_folder`` (the same for a Recorder's).
"""
