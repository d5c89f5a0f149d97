"""The room of `05d_failure_clinic`."""
