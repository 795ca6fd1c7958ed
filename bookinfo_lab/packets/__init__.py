"""Packets as captured: pcapng in and out."""
