"""What the course finds about each claim of the article; `utils.claims_evidence` knows them all."""
