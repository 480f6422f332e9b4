"""What users decorate with and call: options in, a function with a control surface out."""
