"""Where text comes from: one module a source, each with a stand-in for a machine without it."""
