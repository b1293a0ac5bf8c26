"""Backup and restore: one encrypted file that holds everything an installation cannot make again."""
