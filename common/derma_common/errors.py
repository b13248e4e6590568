"""Errors, classed by what the caller does about them.

DermaError                     one clear line for a person: what is wrong and what to do
├── UserError                  the user can mend it: exit code `exit_code`, never retried
│   ├── ConfigError            a setting or a flag is wrong
│   ├── SourceError            a camera, video or picture cannot be read
│   ├── ModelError             a model's file or card is missing, damaged or of another kind
│   └── ResourceError          the machine lacks something: shared memory, disk, a port, permission
└── InvalidMessage             garbage arrived: count it, drop it, go on
StaleHandle                    the pixels behind a handle are gone; the frame has moved on: count it, go on

Anything else that is raised in a stage is a bug: the process dies and the supervisor replaces it.
"""

from __future__ import annotations


class DermaError(Exception):
    """Base of the errors whose text is written for a person."""


class UserError(DermaError):
    """Something that the user can mend; `exit_code` is the process's exit status."""

    exit_code = 1


class ConfigError(UserError):
    """A setting, an environment variable or a flag is wrong."""

    exit_code = 2


class SourceError(UserError):
    """A camera, a recording or a picture cannot be read."""

    exit_code = 3


class ModelError(UserError):
    """A model's file or card is missing, damaged or of another kind."""

    exit_code = 4


class ResourceError(UserError):
    """The machine lacks something: shared memory, disk space, a port, a permission."""

    exit_code = 5


class RunError(UserError):
    """The run itself failed: a service could not be kept alive."""

    exit_code = 6


def error_of(exit_code: int) -> type[UserError] | None:
    """Return the class of error that a process with this exit status reported, None for a crash."""
    return next((cls for cls in UserError.__subclasses__() if cls.exit_code == exit_code), None)


class InvalidMessage(DermaError):
    """A message that does not follow the wire format."""


class StaleHandle(DermaError):
    """The slot behind a handle holds another picture by now, or its ring is gone."""
