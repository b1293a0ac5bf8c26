"""Everything that is kept: the database (models, migrations, queries), and the journal that no call waits for.

Nothing is imported here: SQLAlchemy costs 0.3 s, and most commands that print help do not need it.
"""
