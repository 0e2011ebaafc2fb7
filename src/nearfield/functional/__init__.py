"""Compositions: functions of Tensors made of operations. They need no record, kernel or gradient of their own."""
