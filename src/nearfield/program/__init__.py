"""Program: what a device runs. A leaf: it imports errors and dtype, nothing else."""
