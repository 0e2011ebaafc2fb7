"""Every error that Nearfield raises on purpose.

    NearfieldError
    ├── ShapeError      (ValueError)    sizes of arrays do not fit together
    ├── DTypeError      (TypeError)     element types do not fit together, or a device lacks one
    ├── AxisError       (IndexError)    an axis or an index is out of range
    ├── ArgumentError   (ValueError, TypeError)  an argument that is no array cannot be meant
    ├── GradError       (ValueError)    something cannot be differentiated as asked
    ├── TraceError      (RuntimeError)  a value was asked for while `nf.jit` traces a function
    ├── FormatError     (ValueError)    a file is damaged, hostile or of an unknown version
    └── DeviceError     (RuntimeError)  a device is missing, lost, full, or a limit is exceeded

A message reads: who: what is wrong: what was received; what is accepted. The way out.
"""

__all__ = [
    "ArgumentError",
    "AxisError",
    "DTypeError",
    "DeviceError",
    "FormatError",
    "GradError",
    "NearfieldError",
    "ShapeError",
    "TraceError",
]


class NearfieldError(Exception):
    """What all of Nearfield's own errors are."""


class ShapeError(NearfieldError, ValueError):
    """Sizes do not fit together: `nf.ones((2, 3)) + nf.ones((4,))`. Reshape or broadcast one of them."""


class DTypeError(NearfieldError, TypeError):
    """Element types do not fit: `nf.sin(nf.asarray(["a"]))`. Convert with `nf.astype`."""


class AxisError(NearfieldError, IndexError):
    """An axis or index is out of range: `nf.sum(nf.ones(3), axis=1)`. Count axes from 0 or from -1."""


class ArgumentError(NearfieldError, ValueError, TypeError):
    """A setting is of the wrong kind or size: `nn.Dropout(2)`. The message names it, and what is accepted."""


class GradError(NearfieldError, ValueError):
    """No gradient exists: `nf.grad(f)` where f returns a vector. Return a scalar, such as `nf.mean(y)`."""


class TraceError(NearfieldError, RuntimeError):
    """A value was needed while tracing: `if x > 0` inside `nf.jit`. Use `nf.where`, or leave `jit` off."""


class FormatError(NearfieldError, ValueError):
    """A file is damaged or of an unknown version: `nf.load("cut-short.nfp")`. Fetch or export it again."""


class DeviceError(NearfieldError, RuntimeError):
    """A device cannot do it: missing, lost, out of memory, over a limit. The message has the figures."""
