"""A user's own data: rows and images out of files, labels, splits, kept on disk."""
