"""Where the program meets other people's training frameworks; each is imported on use, and none is needed."""
