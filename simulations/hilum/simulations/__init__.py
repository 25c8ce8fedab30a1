"""The researcher's side: whole federations on one machine, phantoms, and the report."""
