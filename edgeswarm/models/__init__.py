"""What a model is to everybody but its backend: a card, a flat float32 vector, and graphs as bytes."""
