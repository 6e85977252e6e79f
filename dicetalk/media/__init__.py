"""Pictures, sound and video in and out; the portrait and its face; pasting back; the frame rate."""
