"""Run it again, in fresh processes, and compare (check 8).

For a reader: ``request`` (what is asked, and what was found), ``study_replay`` (a manifest's
branches), ``sampling`` and ``budget`` (which of them), ``seed_replay`` and ``attempts`` (one seed,
repeated where it differs); ``recording_replay`` (a recording, with the user's own command) and
``live_comparison`` (rows compared as they come).
"""
