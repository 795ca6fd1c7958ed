"""Where evidence comes from: a live sandbox, a recording.  One module each; `base` says what they share."""
