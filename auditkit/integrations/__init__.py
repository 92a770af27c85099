"""The Recorder for training loops that belong to a framework.

Each module needs the framework that it is named after: ``pip install "auditkit[lightning]"``,
``auditkit[transformers]``, ``auditkit[accelerate]``. torchdata's StatefulDataLoader needs
nothing from here: it is given to ``Recorder.wrap`` like any other loader. MLflow, W&B and pytest
are what their own modules need.
"""
