"""Text: tokenizers, documents, training batches of them, and corpora that ship along."""
