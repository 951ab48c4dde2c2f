"""Files of one package one behind the other, in training and in prompts."""
