"""The databases that rows are moved between."""

from terrace.moving.sides.base import Row, Side, Table

__all__ = ["Row", "Side", "Table"]
