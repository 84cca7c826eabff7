"""PostgreSQL: the tables and every statement. SQL lives here only.

Protects: each call is one transaction, whose every write is conditional on the state that it finds.
"""
