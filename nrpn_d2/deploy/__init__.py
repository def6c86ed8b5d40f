"""What is done with a trained model: predict, and export."""
