"""What is measured: fixed worlds and published protocols, run through the production engine."""
