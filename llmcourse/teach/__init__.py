"""What the notebooks use to teach: checks, hints, progress, figures, widgets."""
