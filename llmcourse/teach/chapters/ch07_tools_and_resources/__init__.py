"""The room of `07_tools_and_resources`."""
