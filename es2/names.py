"""Names that stand in files which one step writes and others read. Torch-free."""

SINGLE = "single"
"""The `control` of the answer rows that are one of several samples; the row of the one kept has none."""

SELF = "self"
"""The attacked model, among the names of those that an attack is fitted on ("base", "parent")."""
