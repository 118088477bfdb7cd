"""From a request to the prompt: sound to log-mel and embeddings, messages to ids."""
