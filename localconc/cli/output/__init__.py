"""What commands print: text, tables and live views for people, JSON for programs. Knows no command and no option."""
