"""What is done to datasets: bringing in those of other programs."""
