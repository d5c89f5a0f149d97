"""A classifier of the reader's own table: `command.finetune_table`, behind `llmcourse finetune FILE.csv --out DIR`."""
