"""Graph -> Program: simplify, fuse, lower, plan, spell."""
