"""The pages of a report: tables, templates, files."""
