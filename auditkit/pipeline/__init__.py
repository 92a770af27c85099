"""The five stages. No stage imports another; ``auditkit.jobs`` runs them one after the other."""
