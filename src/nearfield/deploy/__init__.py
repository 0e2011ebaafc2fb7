"""Deployment: models as static files, for pages without Python."""

from .export import Spec, export
from .manifest import Value
from .model import Model, load
from .page import Server, copy_page

__all__ = ["Model", "Server", "Spec", "Value", "copy_page", "export", "load"]
