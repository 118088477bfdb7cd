"""Speed on a GPU with random weights at the released sizes."""
