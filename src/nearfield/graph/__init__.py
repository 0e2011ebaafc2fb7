"""Graph: a numbered list of operations. What importers make and the compiler reads."""
