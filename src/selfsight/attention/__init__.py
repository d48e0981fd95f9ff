"""What an encoder looks at: maps of attention and likeness, and objects found in them without a label."""
