"""Text made fit to train on: rules, personal data, copies, and planted defects to test them."""
