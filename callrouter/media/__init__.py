"""Sound files: prompts that Asterisk plays, recordings that it wrote, and the disk they lie on."""
