"""A script beside the speech: words with emotion tags, when each word is spoken, the timeline and the subtitles."""
