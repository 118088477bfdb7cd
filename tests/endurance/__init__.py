"""Long proofs on a real server: fuzz, cancel storm, soak. Traffic, watching and verdicts that they share."""
