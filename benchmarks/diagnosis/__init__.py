"""Networks with planted faults and without, for the check-up."""
