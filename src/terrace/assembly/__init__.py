"""The only room that names implementations: it builds the house, opens it, and takes it down in order."""

from terrace.assembly.house import House, assemble, check
from terrace.assembly.running import doctor, serve, work, working
from terrace.assembly.services import application, openapi

__all__ = ["House", "application", "assemble", "check", "doctor", "openapi", "serve", "work", "working"]
