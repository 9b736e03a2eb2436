"""What is measured and shown: tables and plots made from the result files."""
