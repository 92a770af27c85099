"""Jobs on other machines: by dask, by ray, whose schedulers, retries and dashboards do the rest.

For a reader: ``remote_workers`` (stands in for :class:`auditkit.processes.worker_pool.Workers`),
``order`` (what goes there), ``remote_job`` (what is done there), ``handover`` (files and messages
that come back), ``spec`` (``--engine``), ``dask_engine`` and ``ray_engine``.
"""
