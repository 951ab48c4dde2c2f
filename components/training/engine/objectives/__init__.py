"""What a window of tokens asks of the model, as a mixture of objectives by piece of a document."""
