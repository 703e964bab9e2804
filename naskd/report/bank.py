"""What remembering a teacher's answers has saved, in words."""

from collections.abc import Mapping
from typing import Any

from naskd.report.record import Record
from naskd.report.units import count, finite, macs, percent, size


def bank_line(record: Record) -> str:
    """``97% of 1.20 M answers from the bank, 1.30 TMACs saved, bank 12.0 MB``; empty where no teacher was asked.

    A short run may run its teacher on more images than it asks for, since an epoch is remembered whole: then nothing
    is saved, and that is what the line says.
    """
    bank = record.get("bank") or {}
    told = answers(bank)
    if not told:
        return ""
    saved = finite(bank.get("saved_macs"))
    parts = [told, f"{macs(max(saved, 0))} saved" if saved is not None else ""]
    parts.append(f"bank {size(bank['size_bytes'])}" if finite(bank.get("size_bytes")) else "")
    return ", ".join(part for part in parts if part)


def answers(counts: Mapping[str, Any]) -> str:
    """``97% of 1.20 M answers from the bank``; empty without `asked_images`."""
    asked, forward = finite(counts.get("asked_images")), finite(counts.get("forward_images"))
    if not asked or forward is None:
        return ""
    return f"{percent(max(0.0, 1 - forward / asked), 0)} of {count(asked)} answers from the bank"
