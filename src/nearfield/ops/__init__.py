"""What each operation means: tables of records, one family per file."""
