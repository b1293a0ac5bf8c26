"""The running server: one asyncio process that takes calls, watches Asterisk and keeps the routing fresh."""
