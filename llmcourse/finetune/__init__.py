"""Teaching a pretrained model to answer: tasks, chat format, adapters."""
